"""A model under a schedule: which of its parameters train, and whether the schedule fits a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.anatomy.modelmap import ModelMap
from frostline.errors import PlanError
from frostline.evidence.optimizers import held
from frostline.evidence.proof.proof import planned_names
from frostline.freezing.freeze import Freeze
from frostline.plan.describe import describe
from frostline.plan.phase import Phase
from frostline.plan.phase_on_model import compile_schedule
from frostline.plan.plan import FrozenMode, Plan
from frostline.plan.schedule import Schedule

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a schedule has to know of a run.

    Attributes:
        seed: Of what is drawn.
        rate: The peak learning rate.
        steps: Optimizer steps.
        per_epoch: Those of an epoch; None where that is not known.
        evaluates: Whether there are evaluations.
        tells: Whether it is said when a phase begins.
    """

    seed: int
    rate: float
    steps: int
    per_epoch: int | None
    evaluates: bool
    tells: bool


def steps_per_epoch(loader: Any, accumulation: int) -> int | None:
    """Optimizer steps of an epoch; None where nobody knows how many batches it has.

    Args:
        loader: Gives the batches.
        accumulation: Batches per step.
    """
    try:
        return max(1, math.ceil(len(loader) / accumulation))
    except TypeError:
        return None


class PhasedModel:
    """A model under a schedule.

    To begin with, all trains that trains in any phase, so that an optimizer that is made then holds it.

    Args:
        model: The model.
        schedule: The schedule.
        frozen_mode: How frozen modules behave.

    Attributes:
        model: As given.
        schedule: As given.
        phases: The schedule, compiled for the model.
        trains: Names of the parameters that train now.

    Raises:
        SelectorError: If a selector does not fit the model.
        PlanError: If a phase does not.
    """

    def __init__(self, model: nn.Module, schedule: Schedule, frozen_mode: FrozenMode) -> None:
        self.model = model
        self.schedule = schedule
        self.phases = compile_schedule(model, schedule)
        self._frozen_mode = frozen_mode
        self.trains = frozenset().union(*(phase.trains for phase in self.phases))
        self._force = self._frozen_but_for(self.trains)

    def train(self, names: frozenset[str]) -> None:
        """Let parameters train by their names, and freeze all others."""
        self._force.restore()
        self._force = self._frozen_but_for(names)
        self.trains = names

    def _frozen_but_for(self, names: frozenset[str]) -> Freeze:
        selector = describe(ModelMap.of(self.model), names)
        return Freeze(self.model, Plan(train_only=selector, frozen_mode=self._frozen_mode))

    def frozen_in(self, place: int) -> frozenset[str]:
        """Names of the tensors that have to stay in a phase.

        Args:
            place: Its place, from 0.
        """
        selector = self.phases[place].phase.train
        return planned_names(self.model, Plan(train_only=selector, frozen_mode=self._frozen_mode))

    def refuse_other_optimizer(self, optimizer: Any) -> None:
        """Look whether an optimizer holds all that trains in any phase.

        Raises:
            PlanError: If it does not.
        """
        ids = {id(parameter) for parameter in held(optimizer)}
        for phase in self.phases:
            lacking = [name for name in sorted(phase.trains) if id(self.model.get_parameter(name)) not in ids]
            if lacking:
                more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
                raise PlanError(
                    f"{self.schedule.where(phase.number)} trains {lacking[0]}{more}, which the optimizer does not "
                    "hold.\nLet the Trainer make it, or build it over all that trains in any phase."
                )


def lengths_in(schedule: Schedule, run: RunFacts) -> list[int | None]:
    """Reckon how many optimizer steps each phase takes; None where that is not known before.

    Args:
        schedule: The schedule.
        run: The run.

    Raises:
        PlanError: If a phase does not fit the run: it would begin or end behind it, or waits for what there is not.
    """
    lengths: list[int | None] = []
    for number, phase in enumerate(schedule.phases, 1):
        with schedule.at(number):
            lengths.append(None if phase.length is None else phase.length.steps(run.per_epoch, run.steps))
            _refuse_what_is_missing(phase, run)
    _refuse_too_long(schedule, lengths, run.steps)
    return lengths


def _refuse_what_is_missing(phase: Phase, run: RunFacts) -> None:
    is_plateau = phase.length is not None and phase.length.kind == "plateau"
    if is_plateau and not run.evaluates:
        raise PlanError(
            f"until = {phase.until!r} waits for evaluations, and the run has none.\n"
            "Give evaluation data and eval_strategy='epoch' (frostline train: --eval)."
        )
    if is_plateau and phase.warmup is not None and phase.warmup < 1:
        raise PlanError(f"warmup is the share {phase.warmup} of a phase whose length is not known.\nGive steps.")
    if any(not rate.is_factor for rate in phase.rates().values()) and not run.rate:
        raise PlanError("it has an lr, and the run's learning rate is 0.\nGive the run one.")


def _refuse_too_long(schedule: Schedule, lengths: Sequence[int | None], steps: int) -> None:
    mend = "Train longer (num_train_epochs, max_steps), or shorten the phases."
    taken = 0
    for number, length in enumerate(lengths, 1):
        if taken >= steps:
            raise PlanError(
                f"{schedule.where(number)} would begin after {taken} steps, and the run has {steps}.\n{mend}"
            )
        taken += length or 0
    if taken > steps:
        raise PlanError(
            f"{schedule.where(len(lengths))} would end after {taken} steps, and the run has {steps}.\n{mend}"
        )
