"""Which inputs a run reads: those that reach a function of torch, by whatever way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from frostline.compat.tensors import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def reads_of(inputs: Mapping[str, Any], run: Callable[[], object]) -> frozenset[str]:
    """Tell which of some tensors a run reads; one that is only handed on is not read.

    Args:
        inputs: The tensors by name; what is no tensor is left out.
        run: Is given them in its own way.
    """
    with _Reads(inputs) as reads:
        run()
    return frozenset(reads.found)


class _Reads(TorchFunctionMode):
    """Notes which tensors functions of torch are given."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        super().__init__()
        self._names = {id(value): name for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        self.found: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        for leaf in tree_leaves((args, named)):
            name = self._names.get(id(leaf))
            if name is not None:
                self.found.add(name)
        return func(*args, **named)
