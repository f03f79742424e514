"""Standing in for the forwards of modules, for the length of one call of the model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    Forward = Callable[..., Any]


@contextmanager
def interposed(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Let other functions stand in for the forwards of modules.

    ``module(...)`` and ``module.forward(...)`` both lead to the function that stands in; the hooks of the
    module run around it as usual. A forward that somebody else has put on the instance (accelerate does so
    for autocast) comes back afterwards.

    Args:
        forwards: Per module the function that is called instead of its forward, without the module itself.
    """
    before = [(module, vars(module).get("forward")) for module in forwards]
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, own in before:
            if own is None:
                vars(module).pop("forward", None)  # accelerate may have taken it off within
            else:
                vars(module)["forward"] = own
