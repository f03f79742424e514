"""Tied weights: several names for one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def tied_groups(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Find the parameters and buffers that have more than one name.

    Args:
        model: The model.

    Returns:
        Per tensor with several names, all of them; first the one that ``named_parameters()`` prints.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        names.setdefault(id(buffer), []).append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)
