"""What objects hold, all the way down: containers, random generators, arrays and tensors, as they were.

Functions are not followed: what a hook keeps outside the model is not the model's.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from io import IOBase
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from frostline.base.random_state import rewinding
from frostline.compat.tensors import hooks_of
from frostline.evidence.optimizers import is_optimizer
from frostline.evidence.tensor_copy import TensorCopy

# Values that never change, left alone before anything else is asked of them; and those that are not followed.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, torch.dtype, torch.device, torch.Size)
_NOTHING = object()  # stands for an attribute that is not there
_HOLDERS = (list, deque, set, tuple, frozenset)
_ASIDE = (type, Enum, ModuleType, FunctionType, BuiltinFunctionType, MethodType, IOBase)


class ObjectGraph:
    """What objects held, each of them once.

    Attributes:
        tensors: The tensors in them.
        unkept: What cannot be put back, in words: iterators, which do not tell where they stand.
    """

    def __init__(self) -> None:
        self.tensors: list[TensorCopy] = []
        self.unkept: list[str] = []
        self._seen: dict[int, Any] = {}  # the objects stay alive, so that no two of them have the same id
        self._undo: list[Callable[[], Any]] = []
        self._leaves: list[tuple[torch.Tensor, bool, torch.Tensor | None]] = []
        self._array_bytes = 0

    @property
    def copied_bytes(self) -> int:
        """Memory that the copies of dense tensors and of arrays take, in bytes."""
        return self._array_bytes + sum(one.copied_bytes for one in self.tensors)

    def keep(self, root: Any, *, copy: bool = False, where: str = "") -> None:
        """Keep an object with all that is in it.

        Args:
            root: A tensor, a container, a module, an optimizer or any other object.
            copy: Whether tensors are copied now; see `TensorCopy`.
            where: What holds it, in words.
        """
        waiting = [root]
        while waiting:
            value = waiting.pop()
            kind = type(value)
            if kind in _PLAIN or kind in weakref.ProxyTypes or isinstance(value, _ASIDE) or id(value) in self._seen:
                continue
            if isinstance(value, torch.Tensor) and value.layout is torch.strided:
                self.keep_tensor(value, copy=copy)
                continue
            self._seen[id(value)] = value
            waiting.extend(self._keep_one(value, where))

    def keep_tensor(self, tensor: torch.Tensor, *, copy: bool) -> TensorCopy:
        """Keep a tensor that was not kept yet, with its flag, its gradient and its Python attributes."""
        kept = TensorCopy(tensor, copy=copy)
        self.tensors.append(kept)
        self._seen[id(tensor)] = tensor
        if tensor.is_leaf:
            self._leaves.append((tensor, tensor.requires_grad, tensor.grad))
            self.keep((tensor.grad, *hooks_of(tensor)))
        self.keep(vars(tensor))
        return kept

    def _keep_one(self, value: Any, where: str) -> Iterable[Any]:
        """Keep what one object holds itself, and give what is in it."""
        undo = _undoing(value)
        if undo is not None:
            self._undo.append(undo)
        if isinstance(value, dict):
            return [*value, *value.values(), vars(value) if hasattr(value, "__dict__") else None]
        if isinstance(value, _HOLDERS):
            return [*value, vars(value) if hasattr(value, "__dict__") else None]
        if isinstance(value, np.ndarray):
            self._array_bytes += value.nbytes if undo is not None else 0
        elif undo is None and isinstance(value, Iterator) and not hasattr(value, "__dict__"):
            self.unkept.append(f"{where} holds a {type(value).__name__}")
        elif undo is None:
            return self._attributes(value)
        return ()

    def _attributes(self, value: Any) -> Iterable[Any]:
        """What an object has as attributes; of torch's own objects only modules and optimizers have any of interest."""
        if type(value).__module__.partition(".")[0] == "torch" and not (
            isinstance(value, torch.nn.Module) or is_optimizer(value)
        ):
            return ()
        if is_optimizer(value):
            for key, state in value.state.items():
                self.keep(state, copy=not isinstance(key, torch.Tensor) or bound_to_move(key))
            for group in value.param_groups:
                for name, option in group.items():
                    if name != "params":
                        self.keep(option, copy=True)
        attributes = getattr(value, "__dict__", None)
        slots = {name: getattr(value, name, _NOTHING) for name in _slots(type(value))}
        if slots:
            self._undo.append(partial(_refill_slots, value, slots))
        return (attributes, *slots.values())

    def restore(self) -> None:
        """Put everything back, bit by bit; objects keep their identity."""
        for undo in self._undo:
            undo()
        for one in self.tensors:
            one.restore()
        for tensor, flag, grad in self._leaves:
            if tensor.requires_grad != flag:  # only where they differ: a tensor made for inference refuses both
                tensor.requires_grad_(flag)
            if tensor.grad is not grad:
                tensor.grad = grad


def bound_to_move(tensor: torch.Tensor) -> bool:
    """Whether an optimizer that holds a tensor is bound to write into it: it trains, or still has a gradient."""
    return tensor.requires_grad or (tensor.is_leaf and tensor.grad is not None)


def _undoing(value: Any) -> Callable[[], Any] | None:
    """What puts an object's own content back to what it is now; None for one without, such as a tuple."""
    if type(value) is dict:  # what nearly all are
        return partial(_refill_dict, value, value.copy())
    for kinds, copied, refill in _REFILLS:
        if isinstance(value, kinds):
            return partial(refill, value, copied(value))
    if isinstance(value, torch.Tensor):  # a sparse one, whose operators do not say which memory they write into
        return partial(_refill_sparse, value, value.detach().clone())
    if isinstance(value, bytearray):
        return partial(value.__setitem__, slice(None), bytes(value))
    if isinstance(value, np.ndarray):
        return partial(value.__setitem__, ..., value.copy()) if value.flags.writeable else None
    return rewinding(value)


def _slots(kind: type) -> Iterator[str]:
    """Names of the attributes that objects of a class keep outside of ``__dict__``."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] not in sys.stdlib_module_names:
            names = vars(base).get("__slots__", ())
            yield from (name for name in ((names,) if isinstance(names, str) else names) if not name.startswith("__"))


def _refill_dict(now: dict[Any, Any], then: dict[Any, Any]) -> None:
    if not now and not then:  # as most dicts of modules are, for hooks
        return
    if len(now) != len(then) or not (all(map(is_, now, then)) and all(map(is_, now.values(), then.values()))):
        now.clear()
        now.update(then)


def _refill_list(now: list[Any] | deque[Any], then: list[Any]) -> None:
    if len(now) != len(then) or not all(map(is_, now, then)):
        now.clear()
        now.extend(then)


def _refill_set(now: set[Any], then: set[Any]) -> None:
    if now != then:
        now.clear()
        now.update(then)


def _refill_sparse(now: torch.Tensor, then: torch.Tensor) -> None:
    with torch.no_grad():
        now.copy_(then)


def _refill_slots(value: Any, then: dict[str, Any]) -> None:
    for name, kept in then.items():
        if getattr(value, name, _NOTHING) is kept:
            continue
        if kept is _NOTHING:
            object.__delattr__(value, name)
        else:
            object.__setattr__(value, name, kept)  # also where the class refuses (frozen dataclasses)


_REFILLS: tuple[tuple[Any, Callable[[Any], Any], Callable[[Any, Any], None]], ...] = (
    (dict, dict, _refill_dict),
    ((list, deque), list, _refill_list),
    (set, set, _refill_set),
)
