"""What a model holds besides its parameters: buffers, attributes, generators, what is in containers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.base.modules import modules_of
from frostline.compat.modules import own_buffers
from frostline.engine.outputs import SIMPLE, values_in
from frostline.evidence.object_graph import ObjectGraph

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}


class KeptState:
    """All that a model holds besides its parameters, as it was: buffers, attributes, generators, what is in containers.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = modules_of(model)
        self._contents = ObjectGraph()
        for parameter in model.parameters():
            self._contents.keep_tensor(parameter, copy=False)
        self._contents.keep(model, copy=True)

    def restore(self) -> None:
        """Put everything back; objects keep their identity, and what stands in for forwards goes on doing so."""
        standing = [(module, vars(module).get("forward")) for module in self._modules]
        self._contents.restore()
        for module, forward in standing:
            if forward is not None:
                vars(module)["forward"] = forward
            else:
                vars(module).pop("forward", None)


@contextmanager
def keeping_state(model: nn.Module, *, changes: bool) -> Iterator[None]:
    """Leave what modules hold as it is, where a forward changes it."""
    kept = KeptState(model) if changes else None
    try:
        yield
    finally:
        if kept is not None:
            kept.restore()


def state_of(model: nn.Module) -> dict[str, Any]:
    """What modules hold besides parameters, as far as it is tensors or plain values, by where; tensors are copied."""
    found: dict[str, Any] = {}
    for number, module in enumerate(modules_of(model)):
        held = vars(module)
        found.update((f"{number} {name}", value.detach().clone()) for name, value in own_buffers(module).items()
                     if value is not None)  # fmt: skip
        for name in held.keys() - _OF_TORCH:
            for place, value in values_in(held[name], f"{number} {name}", 2):
                found[place] = value.detach().clone() if isinstance(value, torch.Tensor) else value
    return found


def plain_values(model: nn.Module, but: frozenset[str]) -> list[tuple[dict[str, Any], str, Any]]:
    """List the plain values among modules' attributes, such as the weight of a term of a loss.

    Args:
        model: The model.
        but: Names of those that a forward changes, as `state_of` gives them.

    Returns:
        Per value what holds it, its name there, and what it is. Those of torch's own modules are left out.
    """
    return [
        (vars(module), name, vars(module)[name])
        for number, module in enumerate(modules_of(model))
        if not type(module).__module__.startswith("torch.")
        for name in vars(module).keys() - _OF_TORCH - {"training"}
        if isinstance(vars(module)[name], SIMPLE) and f"{number} {name}" not in but
    ]
