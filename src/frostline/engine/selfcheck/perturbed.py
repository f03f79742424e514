"""Weights of almost nothing, made to count while fast paths are compared."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_ALMOST_NOTHING = 1e-2  # in absolute value, the largest of a tensor that hides what flows through it
_SIZE = 0.05


@contextmanager
def perturbed(model: nn.Module) -> Iterator[None]:
    """Add small random numbers to what trains and is almost zero, for a while.

    A head that begins at zero, a LoRA factor or a gate lets nothing through: behind it, any two ways to compute
    something look alike, and they differ as soon as it has trained.
    """
    before: list[tuple[torch.Tensor, torch.Tensor]] = []
    generator = torch.Generator().manual_seed(0)
    try:
        for parameter in model.parameters():
            values = parameter.data  # writing through it leaves the version alone, by which changes are noticed
            if parameter.requires_grad and values.is_floating_point() and _is_almost_nothing(values):
                before.append((values, values.clone()))
                noise = torch.randn(values.shape, generator=generator)
                values.add_((noise * _SIZE).to(values.device, values.dtype))
        yield
    finally:
        for values, own in before:
            values.copy_(own)


def _is_almost_nothing(values: torch.Tensor) -> bool:
    if not values.numel() or values.is_meta or abs(float(values.reshape(-1)[0])) >= _ALMOST_NOTHING:
        return False  # most are told by their first value
    return bool(values.abs().max() < _ALMOST_NOTHING)
