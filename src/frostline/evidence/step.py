"""One real training step: forward, backward, optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from frostline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def on_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch to a device; those that are there stay the same objects.

    Args:
        batch: A tensor, or mappings, lists and tuples of tensors; anything else passes through.
        device: Where to.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [on_device(value, device) for value in batch]
        return tuple(moved) if isinstance(batch, tuple) else moved
    return batch


def loss_of(model: nn.Module, batch: Any, loss: Callable[..., torch.Tensor] | None) -> torch.Tensor:
    """Run the forward and find the loss.

    Args:
        model: The model, in the mode it is to run in.
        batch: A mapping for ``model(**batch)``; a tensor or a tuple for ``model(*batch)``.
        loss: Computes the loss. After a tuple of several it is called with the output and the last item, which
            the model is not given; after a mapping with the output and the batch; else with the output.

    Returns:
        The loss, with one element.

    Raises:
        ModelError: If there is none.
    """
    if isinstance(batch, Mapping):
        output = model(**batch)
        value = _own_loss(output) if loss is None else loss(output, batch)
    else:
        inputs = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
        if loss is None:
            value = _own_loss(model(*inputs))
        elif len(inputs) > 1:
            value = loss(model(*inputs[:-1]), inputs[-1])
        else:
            value = loss(model(*inputs))
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        name = type(model).__name__
        raise ModelError(
            f"The forward of {name} gave no loss.\n"
            "Put labels into the batch, or give loss=…, a function of the output and the target."
        )
    return value


def _own_loss(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping) and "loss" in output:
        return output["loss"]
    if isinstance(output, tuple) and output:
        return output[0]
    return getattr(output, "loss", None)


def computed_in(dtype: torch.dtype | None, device: torch.device) -> Any:
    """The context of mixed precision: autocast to a dtype; for None what is in force outside."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def backward(loss: torch.Tensor, scaler: Any) -> None:
    """Compute the gradients; nothing happens where nothing trains."""
    if loss.requires_grad:
        (loss if scaler is None else scaler.scale(loss)).backward()


def optimize(optimizer: Any, scaler: Any) -> bool:
    """Take the optimizer's step.

    Returns:
        Whether a step was taken; a gradient scaler skips it where a gradient is not finite.
    """
    if optimizer is None:
        return True
    if scaler is None:
        optimizer.step()
        return True
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return bool(scaler.get_scale() >= scale)
