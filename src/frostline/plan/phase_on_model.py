"""A schedule compiled for one model: per phase, what trains, and what each parameter's rate is made of."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frostline.anatomy.modelmap import ModelMap
from frostline.base.dtypes import can_have_gradient
from frostline.errors import PlanError
from frostline.plan.recipe import compile_selector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from frostline.plan.phase import Phase, Rate
    from frostline.plan.schedule import Schedule


@dataclass(frozen=True, slots=True)
class PhaseOnModel:
    """A phase compiled for one model.

    Attributes:
        phase: The phase.
        number: Its number, from 1.
        trains: Names of the parameters that `train` means.
        rates: Per name of those for which one was given, the rate.
        decays: Per name of all of them, what `layer_decay` multiplies the rate by.
        layers: Names of what trains of each layer, and for a phase whose layers settle of the embeddings too, from
            below.
    """

    phase: Phase
    number: int
    trains: frozenset[str]
    rates: dict[str, Rate]
    decays: dict[str, float]
    layers: tuple[frozenset[str], ...]

    def factor(self, name: str, base: float) -> float:
        """What the scheduler's rate of a parameter is multiplied by.

        Args:
            name: The parameter; one that trains.
            base: The peak rate that the scheduler has for it.
        """
        rate = self.rates.get(name)
        given = 1.0 if rate is None else rate.value if rate.is_factor else rate.value / base
        return given * self.decays[name]

    def training_at(self, step: int, seed: int, settled: int) -> frozenset[str]:
        """Names of the parameters that train in one step.

        Args:
            step: The step, counted from the phase's first.
            seed: Of what is drawn.
            settled: How many of the layers are frozen as settled.
        """
        choice = self.phase.choice
        if choice is None:
            return self.trains
        if choice.random is None:
            return self.trains.difference(*self.layers[:settled])
        draw = random.Random(f"{seed} {self.number} {step // choice.every}")  # noqa: S311 - no secret
        drawn = set(draw.sample(range(len(self.layers)), choice.random))
        return self.trains.difference(*(names for place, names in enumerate(self.layers) if place not in drawn))


def compile_schedule(model: nn.Module, schedule: Schedule) -> tuple[PhaseOnModel, ...]:
    """Compile a schedule for a model.

    Raises:
        SelectorError: If a selector does not fit the model; the message names the phase.
        PlanError: If a phase trains nothing, what has no gradient, or draws more layers than it trains; or gives a rate
            to nothing that trains.
    """
    anatomy = ModelMap.of(model)
    compiled = []
    for number, phase in enumerate(schedule.phases, 1):
        with schedule.at(number):
            compiled.append(_compiled(model, anatomy, phase, number))
    return tuple(compiled)


def _compiled(model: nn.Module, anatomy: ModelMap, phase: Phase, number: int) -> PhaseOnModel:
    trains = frozenset(compile_selector(model, anatomy, phase.train).names)
    if not trains:
        raise PlanError(f"train = {phase.train!r} trains nothing.\nName what trains: 'head'.")
    for name, parameter in model.named_parameters():
        if name in trains and not can_have_gradient(parameter):
            raise PlanError(
                f"train = {phase.train!r} trains {name}, but its values are whole numbers ({parameter.dtype}), which "
                "have no gradient.\nTake it away with a term '~NAME'."
            )
    rates: dict[str, Rate] = {}
    for selector, rate in phase.rates().items():
        meant = trains.intersection(compile_selector(model, anatomy, selector).names)
        if not meant:
            raise PlanError(
                f"lr names {selector!r}, of which nothing trains in this phase (train = {phase.train!r}).\n"
                "Name a part of what trains."
            )
        rates |= dict.fromkeys(meant, rate)
    decay = 1.0 if phase.layer_decay is None else phase.layer_decay
    decays = {name: decay**rung for name, rung in rungs(anatomy).items() if name in trains}
    layers = tuple(_layers(anatomy, trains, phase))
    choice = phase.choice
    if choice is not None and len(layers) < (choice.random or 1):
        raise PlanError(
            f"layers = {phase.layers!r} is about {choice.random or 'one or more'} of the layers that train, and "
            f"train = {phase.train!r} has {len(layers)}."
        )
    return PhaseOnModel(phase, number, trains, rates, decays, layers)


def rungs(anatomy: ModelMap) -> dict[str, int]:
    """Per parameter, how many times a decay per layer is applied to its rate.

    Head, pooler and whatever is above the layers: 0. The top layer: 1, the layer beneath it: 2. Embeddings: one more
    than the lowest layer above them.
    """
    found: dict[str, int] = {}
    rung = 0
    for unit in reversed(anatomy.units):
        rung += unit.kind == "layer"
        found |= dict.fromkeys(unit.parameter_names, rung + (unit.kind == "embeddings"))
    return found


def _layers(anatomy: ModelMap, trains: frozenset[str], phase: Phase) -> Iterable[frozenset[str]]:
    settles = phase.choice is not None and phase.choice.random is None
    for unit in anatomy.units:
        inside = trains.intersection(unit.parameter_names)
        if inside and (unit.kind == "layer" or (settles and unit.kind == "embeddings")):
            yield inside
