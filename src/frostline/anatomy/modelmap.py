"""What a model is made of: every parameter and buffer in one unit, units in depth order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from frostline.anatomy.stacks import Stack, find_stacks
from frostline.anatomy.ties import tied_groups

if TYPE_CHECKING:
    from torch import nn

UnitKind = Literal["embeddings", "layer", "norm", "pooler", "head", "other"]

_EMBEDDING_WORDS = re.compile(r"emb|wte|wpe|position|patch", re.IGNORECASE)
_NORM_CLASS = re.compile(r"norm", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the model in depth order.

    Attributes:
        name: ``embeddings``, ``layer 0`` …, ``norm``, ``pooler``, ``head`` or ``other``; where there are two
            stacks a layer carries the stack's name (``encoder layer 0``).
        kind: The name without number and stack.
        parameter_names: As ``named_parameters()`` prints them; a tied tensor under its first name only.
        buffer_names: As ``named_buffers()`` prints them.
        stack: Name of the stack a layer belongs to; None for a unit that is no layer.
        index: Place of a layer in its stack; None for a unit that is no layer.
        shared: Whether the unit holds a tensor that has further names (tied weights, shared layers).
    """

    name: str
    kind: UnitKind
    parameter_names: tuple[str, ...]
    buffer_names: tuple[str, ...]
    stack: str | None = None
    index: int | None = None
    shared: bool = False


@dataclass(frozen=True)
class ModelMap:
    """The anatomy of one model.

    Attributes:
        model_class: Name of the model's class.
        units: In depth order, from the embeddings to the head.
        stacks: The chains of layers; empty where none was found.
        tied: Per tensor with several names, all of them, the printed one first.
    """

    model_class: str
    units: tuple[Unit, ...]
    stacks: tuple[Stack, ...]
    tied: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> ModelMap:
        """Read the anatomy of a model.

        Args:
            model: Any module; on the meta device too, since no values are read.
        """
        base_path = _base_path(model)
        stacks = find_stacks(model, base_path)
        tied = tied_groups(model)
        return cls(
            model_class=type(model).__name__,
            units=_units(model, base_path, stacks, {group[0] for group in tied}),
            stacks=stacks,
            tied=tied,
        )

    @cached_property
    def unit_of(self) -> dict[str, Unit]:
        """Per parameter and buffer name, the unit it is in; further names of tied tensors included."""
        units = {name: unit for unit in self.units for name in (*unit.parameter_names, *unit.buffer_names)}
        for first, *others in self.tied:
            units |= dict.fromkeys(others, units[first])
        return units

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of all parameters, by unit in depth order."""
        return tuple(name for unit in self.units for name in unit.parameter_names)


def _base_path(model: nn.Module) -> str:
    """Path of the backbone inside a model of transformers; ``""`` for any other module."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if prefix and prefix in dict(model.named_children()) else ""


# Depth order of the units above the layers of the stacks.
_AFTER: tuple[UnitKind, ...] = ("norm", "pooler", "other", "head")


def _units(model: nn.Module, base_path: str, stacks: tuple[Stack, ...], tied_first: set[str]) -> tuple[Unit, ...]:
    place = _Placement(model, base_path, stacks)
    parameters: dict[tuple[UnitKind, str | None, int | None], list[str]] = {}
    buffers: dict[tuple[UnitKind, str | None, int | None], list[str]] = {}
    for name, _ in model.named_parameters():
        parameters.setdefault(place(name), []).append(name)
    for name, _ in model.named_buffers():
        buffers.setdefault(place(name), []).append(name)

    keys: list[tuple[UnitKind, str | None, int | None]] = [("embeddings", None, None)]
    keys += [("layer", stack.name, index) for stack in stacks for index in range(len(stack))]
    keys += [(kind, None, None) for kind in _AFTER]
    units = []
    for key in keys:
        kind, stack, index = key
        own = tuple(parameters.get(key, ()))
        if own or key in buffers or kind == "layer":
            units.append(
                Unit(
                    name=f"{stack} layer {index}".lstrip() if kind == "layer" else kind,
                    kind=kind,
                    parameter_names=own,
                    buffer_names=tuple(buffers.get(key, ())),
                    stack=stack,
                    index=index,
                    shared=any(name in tied_first for name in own),
                )
            )
    return tuple(units)


class _Placement:
    """Says which unit a tensor belongs to."""

    def __init__(self, model: nn.Module, base_path: str, stacks: tuple[Stack, ...]) -> None:
        self._model = model
        self._base_prefix = f"{base_path}." if base_path else ""
        self._layers = {
            path: (stack.name, index) for stack in stacks for index, layer in enumerate(stack.layers) for path in layer
        }
        # Modules that hold a stack: a normalisation right inside one of them is the stack's own, not a part's.
        self._around_stacks = {
            list_path[:dot] if dot >= 0 else ""
            for stack in stacks
            for list_path in stack.paths
            for dot in (-1, *(match.start() for match in re.finditer(r"[.]", list_path)))
        }
        order = [path for path, _ in model.named_modules(remove_duplicate=False)]
        self._rank = {path: rank for rank, path in enumerate(order)}
        first = [self._rank[layer[0]] for stack in stacks for layer in stack.layers[:1]]
        last = [self._rank[layer[-1]] for stack in stacks for layer in stack.layers[-1:]]
        self._first_layer = min(first, default=None)
        self._last_layer = max(last, default=None)

    def __call__(self, name: str) -> tuple[UnitKind, str | None, int | None]:
        owner, _, leaf = name.rpartition(".")
        path = owner
        while path:
            if path in self._layers:
                return ("layer", *self._layers[path])
            path = path.rpartition(".")[0]
        return (self._kind(owner, leaf), None, None)

    def _kind(self, owner: str, leaf: str) -> UnitKind:
        if not f"{owner}.".startswith(self._base_prefix):
            return "head"
        inner = f"{owner}.{leaf}".removeprefix(self._base_prefix)
        if _EMBEDDING_WORDS.search(inner):
            return "embeddings"
        if "pool" in inner.lower():
            return "pooler"
        return self._by_class_and_order(owner)

    def _by_class_and_order(self, owner: str) -> UnitKind:
        from torch import nn

        module = self._model.get_submodule(owner)
        if isinstance(module, nn.Embedding):
            return "embeddings"
        if self._first_layer is None or self._last_layer is None:
            return "other"
        if _NORM_CLASS.search(type(module).__name__) and owner.rpartition(".")[0] in self._around_stacks:
            return "norm"
        rank = self._rank[owner]
        if rank < self._first_layer and owner != self._base_prefix.rstrip("."):
            return "embeddings"
        if rank > self._last_layer and not self._base_prefix:
            return "head"
        return "other"
