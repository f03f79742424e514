"""Dropout at 0, so that two ways to run a model can be compared while it is in train mode."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token

# Every function of torch that draws what to drop, and the place of the probability among its arguments.
_IN_PYTHON = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    functional.multi_head_attention_forward,
)
_BUILT_IN: dict[Callable[..., Any], tuple[int, str]] = {
    torch.dropout: (1, "p"),
    torch.dropout_: (1, "p"),
    torch.native_dropout: (1, "p"),
    torch.alpha_dropout: (1, "p"),
    torch.alpha_dropout_: (1, "p"),
    torch.feature_dropout: (1, "p"),
    torch.feature_dropout_: (1, "p"),
    torch.feature_alpha_dropout: (1, "p"),
    torch.feature_alpha_dropout_: (1, "p"),
    functional.scaled_dot_product_attention: (4, "dropout_p"),
}

_RECURRENT: frozenset[Callable[..., Any]] = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})

_off: ContextVar[bool] = ContextVar("dropout_off", default=False)


def is_dropout_off() -> bool:
    """Whether code of this thread runs inside `NoDropout`: for kernels of our own, which no function mode sees."""
    return _off.get()


class NoDropout(TorchFunctionMode):
    """Sets the probability of every dropout of torch to 0; in force inside a ``with`` block.

    Modules, functions and attention are covered, whatever module calls them. What draws random numbers in another way
    (``torch.rand``, ``torch.bernoulli``) draws as before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tokens: list[Token[bool]] = []
        self._places = _places()

    def __enter__(self) -> Self:
        self._tokens.append(_off.set(True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        _off.reset(self._tokens.pop())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, without dropout if it has any."""
        named = kwargs or {}
        place = self._places.get(func)
        if place is not None:
            index, name = place
            if func in _RECURRENT and isinstance(args[3], list | tuple):  # packed rows: sizes stand before the weights
                index += 1
            if len(args) > index:
                args = (*args[:index], 0.0, *args[index + 1 :])
            else:
                named = {**named, name: 0.0}
        return func(*args, **named)


@cache
def _places() -> dict[Callable[..., Any], tuple[int, str]]:
    found = dict(_BUILT_IN)
    found.update((function, (5, "dropout")) for function in _RECURRENT)
    for function in _IN_PYTHON:
        names = list(inspect.signature(function).parameters)
        name = "dropout_p" if "dropout_p" in names else "p"
        found[function] = (names.index(name), name)
    return found
