"""Activations computed within the matrix product that they follow, where no gradient is needed.

oneDNN applies some functions to a product while it is still in the processor's cache. Which activation takes exactly
what a linear layer gives out is found by watching a run, and which function it is by values that it is given. A fused
linear layer gives out what is activated already, and the activation then lets exactly that tensor pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.base.modules import module_at
from frostline.compat.modules import own_buffers, own_parameters
from frostline.engine.interpose import interposed
from frostline.engine.kernels import onednn_linear as products
from frostline.engine.kernels.onednn_linear import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from frostline.engine.interpose import Forward

_OPERATIONS = (
    Operation("gelu", "none"),
    Operation("gelu", "tanh"),
    Operation("relu"),
    Operation("swish"),
    Operation("tanh"),
    Operation("sigmoid"),
)
_GRID = (-8.0, 8.0, 1025)  # what activations are told apart by: from, to, values
_ALIKE = 2e-6


@dataclass(frozen=True, slots=True)
class Fusion:
    """A linear layer and the activation of what it gives out.

    Attributes:
        linear: Path of the layer.
        activation: Path of the activation.
        operation: What oneDNN calls it.
    """

    linear: str
    activation: str
    operation: Operation


def find_fusions(model: nn.Module, run: Callable[[], Any]) -> tuple[Fusion, ...]:
    """Watch a run for activations of what a linear layer gives out.

    Args:
        model: The model inside its wrappers, in eval mode.
        run: Runs its forward.
    """
    given: list[tuple[str, Tensor]] = []  # held, so that no other tensor is taken for it
    pairs: set[tuple[str, str]] = set()

    def watching(path: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            output = original(*arguments, **options)
            given.append((path, output))
            return output

        return forward

    def noting(path: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            if len(arguments) == 1 and not options:
                pairs.update((linear, path) for linear, output in given if output is arguments[0])
            return original(*arguments, **options)

        return forward

    watched: dict[nn.Module, Forward] = {}
    for path, module in model.named_modules():
        if products.is_linear(module):
            watched[module] = watching(path, module.forward)
        elif not any(module.children()) and not own_parameters(module) and not own_buffers(module):
            watched[module] = noting(path, module.forward)
    with torch.no_grad(), interposed(watched):
        run()
    operations = {path: operation_of(model.get_submodule(path)) for _, path in pairs}
    lone = [linear for linear, _ in pairs]
    return tuple(
        Fusion(linear, path, operation)
        for linear, path in sorted(pairs)
        if (operation := operations[path]) is not None and lone.count(linear) == 1
    )


def operation_of(activation: nn.Module) -> Operation | None:
    """What oneDNN calls an activation, told by its values; None if it knows no such function."""
    grid = torch.linspace(*_GRID).unsqueeze(1)
    with torch.no_grad():
        try:
            values = activation(grid.clone())
        except Exception:  # noqa: BLE001 - a module of anybody's, given what it may not expect
            return None
        if not isinstance(values, torch.Tensor) or values.shape != grid.shape or values.dtype != grid.dtype:
            return None
        one = torch.ones(1, 1)
        for operation in _OPERATIONS:
            if float((products.product(grid, one, None, operation) - values).abs().max()) <= _ALIKE:
                return operation
    return None


def forwards(
    model: nn.Module, fusions: Iterable[Fusion], linear: Mapping[nn.Module, Forward]
) -> dict[nn.Module, Forward]:
    """Forwards for linear layers and their activations.

    Args:
        model: The model inside its wrappers.
        fusions: Which belong together.
        linear: The forwards of linear layers by oneDNN; those that are missing there are left as they are.
    """
    found: dict[nn.Module, Forward] = {}
    activated: dict[str, Tensor] = {}  # per activation, what it need not do again
    for fusion in fusions:
        layer = module_at(model, fusion.linear)
        activation = module_at(model, fusion.activation)
        if layer in linear:
            found[layer] = _linear(layer, linear[layer], fusion, activated)
            found.setdefault(activation, _activation(activation.forward, fusion.activation, activated))
    return found


def _linear(layer: nn.Module, original: Forward, fusion: Fusion, activated: dict[str, Tensor]) -> Forward:
    def forward(values: Tensor) -> Tensor:
        weight, bias = products.parameters_of(layer)
        if not products.takes(values, weight) or products.needs_gradient(values, weight, bias):
            return original(values)  # type: ignore[no-any-return]
        output = activated[fusion.activation] = products.product(values, weight, bias, fusion.operation)
        return output

    return forward


def _activation(original: Forward, path: str, activated: dict[str, Tensor]) -> Forward:
    def forward(*arguments: Any, **options: Any) -> Any:
        done = activated.pop(path, None)
        if done is not None and arguments and arguments[0] is done:
            return done
        return original(*arguments, **options)

    return forward
