"""Weights that make every part of a tiny model matter."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

_NOISE = 0.1


def scatter_weights(model: nn.Module, seed: int) -> None:
    """Give a model weights that are far from degenerate, in place.

    Tables and projections get values of the size that keeps activations near 1 at tiny widths (the usual standard
    deviation of 0.02 would make attention uniform and layers near the identity); all else keeps its own first value
    and gets noise, so that no bias is 0, no gate is closed and no two layers are equal.

    Args:
        model: Any module, on the CPU; parameters with several names are drawn once.
        seed: The same seed draws the same values.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = _inputs_per_weight(model)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter in inputs:
                parameter.copy_(noise / math.sqrt(inputs[parameter]))
            elif not torch.isfinite(parameter).all():
                raise ValueError("A parameter was never initialised")
            else:
                parameter.add_(noise, alpha=_NOISE)


def _inputs_per_weight(model: nn.Module) -> dict[nn.Parameter, int]:
    """How many inputs a value of each table (1) and projection sums over."""
    inputs: dict[nn.Parameter, int] = {}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            inputs[_weight(module)] = 1
        elif isinstance(module, nn.Linear):
            inputs[_weight(module)] = module.in_features
        elif isinstance(module, Conv1D):
            inputs[_weight(module)] = module.nx
    return inputs


def _weight(module: nn.Module) -> nn.Parameter:
    return module.get_parameter("weight")
