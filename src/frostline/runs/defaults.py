"""Epochs and peak learning rate of ``frostline train`` where they are left out (the evidence: ``docs/defaults.md``)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import nn

from frostline.anatomy.origin import Origin
from frostline.data.messages import counted
from frostline.plan.phase_on_model import compile_schedule
from frostline.plan.rates import usual_rate
from frostline.plan.schedule import Schedule
from frostline.runs.train_settings import TrainSettings

STEPS = 300
FEWEST_EPOCHS, MOST_EPOCHS = 3, 20

# Below these, a new head stayed near where it began.
_FEW_STEPS = 30
_LITTLE = 0.1  # of STEPS at the usual rate


@dataclass(frozen=True, slots=True)
class TrainingLength:
    """How long a run trains, and how fast.

    Attributes:
        epochs: Passes over the data.
        learning_rate: The peak rate.
        steps: Optimizer steps.
        chosen: What was left out, as it was chosen and what for; ``""`` where nothing was.
        warning: Why that is likely too little for the new weights, and the mend; ``""`` where it is not.
    """

    epochs: float
    learning_rate: float
    steps: int
    chosen: str
    warning: str

    @classmethod
    def of(
        cls,
        model: nn.Module,
        origin: Origin,
        settings: TrainSettings,
        rows: int,
        schedule: Schedule | None = None,
    ) -> TrainingLength:
        """Take what the settings give, and choose what they leave out.

        Args:
            model: The model, frozen as it will train.
            origin: Where its parameters come from.
            settings: What was asked for.
            rows: Training rows.
            schedule: What trains phase by phase; the rate is then that of the first phase, and the epochs are enough
                for all phases that count theirs.
        """
        per_epoch = math.ceil(rows / settings.batch_size)
        passes = usual_epochs(per_epoch)
        if schedule is None:
            usual, trains = usual_rate(model)
        else:
            passes = _epochs(schedule, per_epoch, passes)
            first = compile_schedule(model, schedule)[0]
            usual, trains = usual_rate(
                model, first.training_at(0, 0, 0), layer_decay=schedule.phases[0].layer_decay or 1
            )
        epochs = passes if settings.epochs is None else settings.epochs
        rate = usual if settings.learning_rate is None else settings.learning_rate
        chosen = []
        if settings.learning_rate is None:
            by_phase = "the learning rate of each phase that names none"
            chosen.append(f"learning rate {rate:g} for {trains}" if schedule is None else by_phase)
        if settings.epochs is None:
            chosen.append(f"{epochs:g} epochs for {rows:,} rows")
        steps = math.ceil(epochs * per_epoch)
        is_new = any(parameter.requires_grad and name in origin.new for name, parameter in model.named_parameters())
        warning = ""
        if is_new and (steps < _FEW_STEPS or steps * rate < _LITTLE * STEPS * usual):
            rather = f"--epochs {math.ceil(STEPS / per_epoch)} --lr {usual:g}"
            warning = f"{counted(steps, 'step')} at {rate:g} will hardly move new weights; rather {rather}."
        return cls(epochs, rate, steps, " and ".join(chosen), warning)


def with_usual_rates(model: nn.Module, schedule: Schedule) -> Schedule:
    """Give each phase that names no rate the usual one for what trains in it.

    Args:
        model: The model.
        schedule: The schedule.
    """
    rates = [
        usual_rate(model, one.training_at(0, 0, 0), layer_decay=one.phase.layer_decay or 1)[0]
        for one in compile_schedule(model, schedule)
    ]
    phases = [
        replace(phase, lr=rate) if phase.lr is None else phase
        for phase, rate in zip(schedule.phases, rates, strict=True)
    ]
    return replace(schedule, phases=tuple(phases))


def usual_epochs(steps: int) -> float:
    """Passes over the data where none are asked for.

    Args:
        steps: Steps of an epoch.
    """
    return float(min(max(FEWEST_EPOCHS, math.ceil(STEPS / steps)), MOST_EPOCHS))


def _epochs(schedule: Schedule, per_epoch: int, usual: float) -> float:
    """Epochs that a schedule takes; where a phase does not count its own, the usual number is added for it."""
    lengths = [phase.length for phase in schedule.phases]
    counted = [length for length in lengths if length is not None and length.kind in ("steps", "epochs")]
    steps = sum(length.steps(per_epoch, 0) or 0 for length in counted)
    epochs = steps / per_epoch + (usual if len(counted) < len(lengths) else 0.0)
    return epochs if epochs.is_integer() else math.nextafter(epochs, 0.0)  # which rounds up to no step more
