"""Looking into an optimizer: what it holds, at which rate, and the one inside a wrapper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer inside the wrappers of accelerate.

    Args:
        optimizer: An optimizer of torch or of its kind, wrapped or not.
    """
    while type(optimizer).__name__ == "AcceleratedOptimizer":
        optimizer = optimizer.optimizer
    return optimizer


def scaler_of(optimizer: Any) -> Any:
    """The gradient scaler that accelerate gave to an optimizer; None where there is none."""
    return optimizer.scaler if type(optimizer).__name__ == "AcceleratedOptimizer" else None


def held(optimizer: Any) -> Iterator[torch.Tensor]:
    """Yield the parameters that an optimizer holds, by group."""
    if optimizer is not None:
        for group in optimizer.param_groups:
            yield from group["params"]


def learning_rates(optimizer: Any) -> dict[int, float]:
    """Per parameter of an optimizer, by id, its learning rate now; 0 for a group that states none."""
    if optimizer is None:
        return {}
    return {
        id(parameter): float(group.get("lr") or 0.0)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
