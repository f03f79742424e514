"""The way through a model: what lies beneath the frost line, and where stored activations can enter above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.wrappers import unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from frostline.anatomy.modelmap import Unit


@dataclass(frozen=True, slots=True)
class Site:
    """A place where stored activations can take the place of computed ones.

    Attributes:
        path: Of the module.
        side: Whether they come in with what the module is given, or are what it gives out.
    """

    path: str
    side: Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class Route:
    """One depth of a model.

    Attributes:
        boundary: Name of the lowest unit that runs.
        tables: Paths of the modules of the embeddings beneath it.
        skipped: Paths of the layers beneath it, in running order.
        sites: Where activations can enter above it, in running order.
        chains: Per stack of the text, the paths of its layers above the boundary that follow each other.
        layers: How many layers the stacks of the text have.
    """

    boundary: str
    tables: tuple[str, ...]
    skipped: tuple[str, ...]
    sites: tuple[Site, ...]
    chains: tuple[tuple[str, ...], ...]
    layers: int

    @classmethod
    def at(cls, model: nn.Module, boundary: str, anatomy: ModelMap | None = None) -> Route:
        """The route of a model whose lowest running unit is `boundary`.

        Args:
            model: The model.
            boundary: Name of a unit.
            anatomy: Its anatomy, where it is known.

        Raises:
            KeyError: If there is no unit of that name.
        """
        anatomy = anatomy or ModelMap.of(model)
        names = [unit.name for unit in anatomy.units]
        if boundary not in names:
            raise KeyError(boundary)
        split = names.index(boundary)
        beneath, above = anatomy.units[:split], anatomy.units[split:]
        layer_parts = {
            (stack.name, index): layer for stack in anatomy.stacks for index, layer in enumerate(stack.layers)
        }
        skipped = [layer_parts[unit.stack, unit.index] for unit in beneath if unit.index is not None]
        sites: list[Site] = []
        if skipped and len(skipped[-1]) > 1:  # the residual stream passes by the parts of a layer (XLM)
            sites.append(Site(skipped[-1][-1], "output"))
        for unit in above:
            parts = layer_parts[unit.stack, unit.index] if unit.index is not None else _modules_of(model, unit)
            sites += [Site(path, "input") for path in parts]
        live = {(unit.stack, unit.index) for unit in above if unit.index is not None}
        stacks = [stack for stack in anatomy.stacks if stack.name not in {"vision", "audio"}]
        chains = [
            tuple(layer[0] for index, layer in enumerate(stack.layers) if (stack.name, index) in live)
            for stack in stacks
            if all(len(layer) == 1 for layer in stack.layers)
        ]
        return cls(
            boundary=boundary,
            tables=tuple(path for unit in beneath if unit.kind == "embeddings" for path in _modules_of(model, unit)),
            skipped=tuple(path for parts in skipped for path in parts),
            sites=tuple(sites),
            chains=tuple(chain for chain in chains if chain),
            layers=sum(map(len, stacks)),
        )


def frost_line(model: nn.Module, anatomy: ModelMap | None = None) -> str | None:
    """Name of the lowest unit with a parameter that trains; None where everything is frozen."""
    anatomy = anatomy or ModelMap.of(model)
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return next((unit.name for unit in anatomy.units if trains.intersection(_all_names(unit))), None)


def _all_names(unit: Unit) -> tuple[str, ...]:
    return (*unit.parameter_names, *unit.alias_names)


def _modules_of(model: nn.Module, unit: Unit) -> tuple[str, ...]:
    """Paths of the largest modules that hold parameters of one unit and of no other."""
    own = {*unit.parameter_names, *unit.alias_names}
    return tuple(_largest(model, "", own))


def _largest(module: nn.Module, path: str, own: set[str]) -> Iterator[str]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        names = [f"{inner}.{parameter}" for parameter, _ in child.named_parameters(remove_duplicate=False)]
        if names and own.issuperset(names):
            yield inner
        elif not own.isdisjoint(names):
            yield from _largest(child, inner, own)


def core_of(model: nn.Module) -> nn.Module:
    """The model inside its wrappers, whose forward is the one that the engine stands in for."""
    return unwrap(model).core
