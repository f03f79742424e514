"""The tensors and plain values in whatever a forward gives out, or a module holds, by where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.base.random_state import generator_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_DEEPEST = 6  # nested containers of outputs
SIMPLE = (bool, int, float, str)


def tensors_of(output: Any) -> dict[str, Tensor]:
    """Every tensor in what a forward gave out, by where it stands: in mappings, sequences and objects' attributes."""
    found = values_in(output, "", _DEEPEST)
    return {place or "output": value for place, value in found if isinstance(value, torch.Tensor)}


def values_in(value: Any, place: str, depth: int) -> Iterator[tuple[str, Any]]:
    """The tensors and plain values in a container, by where they stand."""
    if isinstance(value, (torch.Tensor, *SIMPLE)):
        yield place, value
    elif (state := generator_state(value)) is not None:
        yield place, state
    elif depth and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from values_in(inner, f"{place}.{name}" if place else str(name), depth - 1)
    elif depth and isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from values_in(inner, f"{place}[{number}]", depth - 1)
    elif depth > 2 and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type) and not callable(value):
        yield from values_in(vars(value), place, depth - 1)
