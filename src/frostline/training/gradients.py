"""The parameters that have a gradient, found without a look at each of the others' names."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from frostline.base.modules import modules_of
from frostline.compat.modules import own_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator


class WithGradients:
    """A model as far as its gradients matter: norms and clipping skip all other parameters anyway.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @classmethod
    def of(cls, model: nn.Module) -> nn.Module | WithGradients:
        """A model so seen; the model itself where it has its own way to tell its parameters."""
        kind = type(model)
        usual = kind.parameters is nn.Module.parameters and kind.named_parameters is nn.Module.named_parameters
        return cls(model) if usual else model

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those with a gradient, each once, in the order of ``model.parameters()``."""
        found: dict[nn.Parameter, None] = {}
        for module in modules_of(self._model):
            for parameter in own_parameters(module).values():
                if parameter is not None and parameter.grad is not None:
                    found[parameter] = None
        return iter(found)


class _Clear:
    """Stands in for the ``zero_grad`` of a model; it is copied with the model, and then clears the copy."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, set_to_none: bool = True) -> None:
        if not set_to_none:
            type(self._model).zero_grad(self._model, set_to_none=False)
            return
        for parameter in WithGradients(self._model).parameters():
            parameter.grad = None


@contextmanager
def cleared_quickly(model: nn.Module) -> Iterator[None]:
    """For a while, let ``model.zero_grad()`` clear gradients without a look at each parameter's name.

    Args:
        model: The model; one with its own way to tell its parameters, or to clear them, keeps it.
    """
    own = type(model).zero_grad is not nn.Module.zero_grad or "zero_grad" in vars(model)
    if own or WithGradients.of(model) is model:
        yield
        return
    vars(model)["zero_grad"] = _Clear(model)
    try:
        yield
    finally:
        vars(model).pop("zero_grad", None)
