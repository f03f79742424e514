"""The parameters that have a gradient, found without a look at each of the others' names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

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
        seen: set[nn.Module] = set()
        left: list[nn.Module | None] = [self._model]
        while left:
            module = left.pop()
            if module is None or module in seen:
                continue
            seen.add(module)
            for parameter in module._parameters.values():  # noqa: SLF001 - no public name that is as fast
                if parameter is not None and parameter.grad is not None:
                    found[parameter] = None
            left.extend(reversed(module._modules.values()))  # noqa: SLF001
        return iter(found)
