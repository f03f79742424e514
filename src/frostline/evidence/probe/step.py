"""One real training step: forward, backward, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from frostline.errors import ModelError, SettingsError
from frostline.evidence.optimizers import needs_closure
from frostline.evidence.probe.inputs import called


def begin(model: nn.Module) -> None:
    """Begin a step as a training loop does: in train mode, and without gradients of what trains."""
    clear_gradients(model)
    model.train()


def clear_gradients(model: nn.Module) -> None:
    """Drop the gradients of what trains."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = None


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
        DataError: If the forward does not take the batch.
    """
    if loss is None:
        value = own_loss(called(model, batch))
    elif isinstance(batch, Mapping):
        value = loss(called(model, batch), batch)
    elif isinstance(batch, list | tuple) and len(batch) > 1:
        value = loss(called(model, batch[:-1]), batch[-1])
    else:
        value = loss(called(model, batch))
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        name = type(model).__name__
        raise ModelError(
            f"The forward of {name} gave no loss.\n"
            "Put labels into the batch, or give loss=…, a function of the output and the target."
        )
    return value


def own_loss(output: Any) -> Any:
    """The loss that an output has: its entry or attribute of that name, its first item, or the output itself."""
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


def optimize(optimizer: Any, scaler: Any, again: Callable[[], torch.Tensor], loss: torch.Tensor) -> bool:
    """Take the optimizer's step.

    Args:
        optimizer: The optimizer; None for none.
        scaler: The gradient scaler; None for none.
        again: Runs forward and backward anew, for an optimizer that needs a closure.
        loss: What the forward gave, whose gradients are there: what the closure gives when it is first asked.

    Returns:
        Whether a step was taken; a gradient scaler skips it where a gradient is not finite.

    Raises:
        SettingsError: If the optimizer needs a closure, for which a scaler cannot be used.
    """
    if optimizer is None:
        return True
    closing = needs_closure(optimizer)
    if scaler is not None:
        if closing:
            name = type(optimizer).__name__
            raise SettingsError(f"{name} needs a closure, which a gradient scaler cannot serve.\nUse bf16 or fp32.")
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        return bool(scaler.get_scale() >= scale)
    if closing:
        ready = [loss]
        optimizer.step(lambda: ready.pop() if ready else again())
    else:
        optimizer.step()
    return True
