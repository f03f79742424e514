"""The whole state of a model, an optimizer and the random number generators, for comparison bit by bit."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import nn


def bits(value: Any) -> Any:
    """A value with each tensor replaced by its identity, dtype, shape and bytes."""
    if isinstance(value, torch.Tensor):
        values = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return (id(value), str(value.dtype), tuple(value.shape), values)
    if isinstance(value, dict):
        return {key if not isinstance(key, torch.Tensor) else id(key): bits(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [bits(inner) for inner in value]
    return value


def state(model: nn.Module, optimizer: Any = None) -> dict[str, Any]:
    """All that a step may change, in a form that ``==`` compares exactly."""
    seen: dict[str, Any] = {
        "parameters": bits(dict(model.named_parameters(remove_duplicate=False))),
        "flags": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "gradients": {name: bits(parameter.grad) for name, parameter in model.named_parameters()},
        "buffers": bits(dict(model.named_buffers(remove_duplicate=False))),
        "modules": {path: id(module) for path, module in model.named_modules()},
        "modes": {path: module.training for path, module in model.named_modules()},
        "asked": {
            path: getattr(vars(module)["train"], "asked", None)
            for path, module in model.named_modules()
            if "train" in vars(module)
        },
        "rng": (bits(torch.get_rng_state())[3], random.getstate(), [str(part) for part in np.random.get_state()]),  # noqa: NPY002 - the state that libraries draw from
    }
    if optimizer is not None:
        seen["state"] = bits(dict(optimizer.state))
        seen["state order"] = [id(key) for key in optimizer.state]
        seen["groups"] = bits([dict(group) for group in optimizer.param_groups])
        seen["attributes"] = {key: id(value) for key, value in vars(optimizer).items()}
    return seen
