"""What a model is made of: every parameter and buffer in one unit, units in depth order."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from frostline.anatomy.kinds import Kind, kinds_of
from frostline.anatomy.placement import Place, Placement, UnitKind, base_path
from frostline.anatomy.stacks import Stack, find_stacks
from frostline.anatomy.ties import tied_groups
from frostline.anatomy.wrappers import notes_on, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the model in depth order.

    Attributes:
        name: ``embeddings``, ``layer 0`` …, ``norm``, ``pooler``, ``other`` or ``head``; where there are several
            stacks it carries the stack's name (``encoder layer 0``, ``decoder norm``).
        kind: The name without number and stack.
        parameter_names: As ``named_parameters()`` prints them; a tied tensor under its first name only.
        buffer_names: As ``named_buffers()`` prints them.
        stack: The stack that the unit goes with; ``""`` for the only one, and for what goes with none.
        index: Place of a layer in its stack; None for a unit that is no layer.
        shared: Whether a tensor of the unit is another unit's as well (tied weights), or the unit runs more than once.
        alias_names: Further names, in this unit, of tensors whose first name is in another one.
    """

    name: str
    kind: UnitKind
    parameter_names: tuple[str, ...]
    buffer_names: tuple[str, ...]
    stack: str = ""
    index: int | None = None
    shared: bool = False
    alias_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelMap:
    """The anatomy of one model.

    Attributes:
        model_class: Name of the model's class, wrappers looked through.
        units: In depth order, from the embeddings to the head.
        stacks: The chains of layers; empty where none was found.
        tied: Per tensor with several names, all of them, the printed one first.
        kinds: The parameters of each kind that cuts across the units.
        notes: What else there is to know: wrappers, adapters, layers that run more than once, no stack found.
        prefix: What the names of the model inside its wrappers begin with.
        repeats: How many times each layer runs in one forward; more than once where layers share weights (ALBERT).
    """

    model_class: str
    units: tuple[Unit, ...]
    stacks: tuple[Stack, ...]
    tied: tuple[tuple[str, ...], ...]
    kinds: dict[Kind, frozenset[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prefix: str = ""
    repeats: int = 1

    @classmethod
    def of(cls, model: nn.Module) -> ModelMap:
        """Read the anatomy of a model.

        Args:
            model: Any module; on the meta device too, since no values are read.
        """
        base = base_path(model)
        stacks = find_stacks(model, base)
        tied = tied_groups(model)
        unwrapped = unwrap(model)
        repeats = _repeats(unwrapped.core, stacks)
        return cls(
            model_class=type(unwrapped.core).__name__,
            units=_units(model, Placement(model, base, stacks), stacks, tied, repeated=repeats > 1),
            stacks=stacks,
            tied=tied,
            kinds=kinds_of(model),
            notes=tuple(_notes(model, stacks, repeats)),
            prefix=unwrapped.prefix,
            repeats=repeats,
        )

    @cached_property
    def unit_of(self) -> dict[str, Unit]:
        """Per parameter and buffer name, the unit it is in; a further name of a tied tensor leads to the first's."""
        units = {name: unit for unit in self.units for name in (*unit.parameter_names, *unit.buffer_names)}
        for first, *others in self.tied:
            units |= dict.fromkeys(others, units[first])
        return units

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of all parameters, by unit in depth order."""
        return tuple(name for unit in self.units for name in unit.parameter_names)


def _units(
    model: nn.Module,
    place: Placement,
    stacks: Sequence[Stack],
    tied: Sequence[Sequence[str]],
    *,
    repeated: bool,
) -> tuple[Unit, ...]:
    parameters: dict[Place, list[str]] = {}
    buffers: dict[Place, list[str]] = {}
    aliases: dict[Place, list[str]] = {}
    for name, _ in model.named_parameters():
        parameters.setdefault(place(name), []).append(name)
    for name, _ in model.named_buffers():
        buffers.setdefault(place(name), []).append(name)
    shared: set[Place] = set()
    for first, *others in tied:
        elsewhere = [name for name in others if place(name) != place(first)]
        for name in elsewhere:
            aliases.setdefault(place(name), []).append(name)
            shared |= {place(first), place(name)}
    return tuple(
        Unit(
            name=_name(key),
            kind=key.kind,
            parameter_names=tuple(parameters.get(key, ())),
            buffer_names=tuple(buffers.get(key, ())),
            stack=key.stack,
            index=key.index,
            shared=key in shared or (repeated and key.kind == "layer"),
            alias_names=tuple(aliases.get(key, ())),
        )
        for key in _depth_order(stacks)
        if key.kind == "layer" or key in parameters or key in buffers
    )


def _name(place: Place) -> str:
    number = "" if place.index is None else f" {place.index}"
    return f"{place.stack} {place.kind}{number}".lstrip()


def _depth_order(stacks: Sequence[Stack]) -> Iterator[Place]:
    """Every place there can be, in the order in which a forward runs them: towers first, then the text's stacks."""
    # What goes with no stack in particular: tables that several stacks share come before all of them.
    names = [stack.name for stack in sorted(stacks, key=lambda stack: stack.name not in {"vision", "audio"})]
    lone = "" not in names
    if lone:
        yield Place("embeddings", "", None)
    for name in names:
        length = next(len(stack) for stack in stacks if stack.name == name)
        yield Place("embeddings", name, None)
        yield from (Place("layer", name, index) for index in range(length))
        yield from (Place(kind, name, None) for kind in _ABOVE)
    if lone:
        yield from (Place(kind, "", None) for kind in _ABOVE)
    yield Place("head", "", None)


_ABOVE: tuple[UnitKind, ...] = ("norm", "pooler", "other")


def _repeats(core: nn.Module, stacks: Sequence[Stack]) -> int:
    """How many times the layers run in one forward; more than once where they share weights (ALBERT)."""
    config = getattr(core, "config", None)
    if getattr(config, "num_hidden_groups", None) is None or len(stacks) != 1:
        return 1
    return max(1, int(getattr(config, "num_hidden_layers", 1)) // len(stacks[0]))


def _notes(model: nn.Module, stacks: Sequence[Stack], repeats: int) -> Iterator[str]:
    yield from notes_on(model)
    if repeats > 1:
        layers = "The only layer runs" if len(stacks[0]) == 1 else f"Each of the {len(stacks[0])} layers runs"
        yield f"{layers} {repeats} times in a forward, with the same weights: freezing it freezes all of them."
    if not stacks and any(True for _ in model.parameters()):
        yield "No chain of layers was found: name modules, parameters or globs instead of layers[…]."
