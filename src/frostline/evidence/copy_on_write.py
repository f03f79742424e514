"""Copy on write: a tensor is copied at the moment when something is about to write into it.

So what is frozen costs no memory, and yet nothing that writes into it goes unseen, whatever the flags say: an
optimizer that decays weights without a gradient, a momentum encoder that is averaged in the forward. Torch tells
a dispatch mode of every operator that runs beneath autograd, and each operator's schema says which of its
arguments it writes into. Kernels that do not go through torch's operators are not seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from frostline.compat.tensors import TorchDispatchMode, schema_of
from frostline.evidence.tensor_copy import TensorCopy, tensors_in


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Saves kept tensors before an operator writes into their memory; in force inside a ``with`` block.

    Args:
        kept: The tensors to watch. Those that are copied already do no harm.
        most_bytes: How much is copied at most; what is written into beyond that is only noted. None for no end.
    """

    supports_higher_order_operators = True

    def __init__(self, kept: Iterable[TensorCopy], most_bytes: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept: dict[int, list[TensorCopy]] = defaultdict(list)
        self._left = most_bytes
        self._written: dict[Any, tuple[tuple[int, str], ...]] = {}
        self.add(kept)

    def add(self, kept: Iterable[TensorCopy]) -> None:
        """Watch more tensors from now on."""
        for one in kept:
            if one.storage:
                self._kept[one.storage].append(one)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Save what the operator is going to write into, then run it."""
        named = kwargs or {}
        for place, name in self._places(func):
            value = args[place] if place < len(args) else named.get(name)
            for tensor in tensors_in(value):
                for one in self._kept.get(_address(tensor), ()):
                    self._save(one)
        return func(*args, **named)

    def _save(self, one: TensorCopy) -> None:
        one.written = True
        if self._left is None:
            one.save()
        elif not one.copied and one.tensor.nbytes <= self._left:
            self._left -= one.tensor.nbytes
            one.save()

    def _places(self, func: Any) -> tuple[tuple[int, str], ...]:
        """Position and name of the arguments that an operator writes into."""
        found = self._written.get(func)
        if found is None:
            schema = schema_of(func)
            found = tuple(
                (place, argument.name)
                for place, argument in enumerate(schema.arguments if schema is not None else ())
                if argument.alias_info is not None and argument.alias_info.is_write
            )
            self._written[func] = found
        return found


def _address(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
