"""Epochs and peak learning rate of ``frostline train`` where they are left out (the evidence: ``docs/defaults.md``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from frostline.anatomy.origin import Origin
from frostline.data.messages import counted
from frostline.plan.rates import usual_rate
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
    def of(cls, model: nn.Module, origin: Origin, settings: TrainSettings, rows: int) -> TrainingLength:
        """Take what the settings give, and choose what they leave out.

        Args:
            model: The model, frozen as it will train.
            origin: Where its parameters come from.
            settings: What was asked for.
            rows: Training rows.
        """
        per_epoch = math.ceil(rows / settings.batch_size)
        usual_epochs = float(min(max(FEWEST_EPOCHS, math.ceil(STEPS / per_epoch)), MOST_EPOCHS))
        usual, trains = usual_rate(model)
        epochs = usual_epochs if settings.epochs is None else settings.epochs
        rate = usual if settings.learning_rate is None else settings.learning_rate
        chosen = []
        if settings.learning_rate is None:
            chosen.append(f"learning rate {rate:g} for {trains}")
        if settings.epochs is None:
            chosen.append(f"{epochs:g} epochs for {rows:,} rows")
        steps = math.ceil(epochs * per_epoch)
        is_new = any(parameter.requires_grad and name in origin.new for name, parameter in model.named_parameters())
        warning = ""
        if is_new and (steps < _FEW_STEPS or steps * rate < _LITTLE * STEPS * usual):
            rather = f"--epochs {math.ceil(STEPS / per_epoch)} --lr {usual:g}"
            warning = f"{counted(steps, 'step')} at {rate:g} will hardly move new weights; rather {rather}."
        return cls(epochs, rate, steps, " and ".join(chosen), warning)
