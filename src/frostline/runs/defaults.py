"""Epochs and peak learning rate of ``frostline train`` where they are left out (the evidence: ``docs/defaults.md``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.origin import Origin
from frostline.data.messages import counted
from frostline.runs.train_settings import TrainSettings

# Rates for a model of MEASURED_WIDTH. A wider one takes lower rates in proportion: under Adam each weight moves by
# about the rate, so what a layer gives out moves by the rate times the layer's width. What the layers give out adds
# up, so they share LAYERS_RATE.
MEASURED_WIDTH = 384
HEAD_RATE = 1e-2  # the head alone: a linear layer on features that stay as they are
MOST_RATE = 1e-3  # all else at most: one or two layers, the pooler, norms
LAYERS_RATE = 1.5e-3
_SMALL_SHARE = 0.1  # of the layers' parameters: adapters, norms and biases move less than whole layers

STEPS = 300
FEWEST_EPOCHS, MOST_EPOCHS = 3, 20

# Below these, a new head stayed near where it began.
_FEW_STEPS = 30
_LITTLE = 0.1  # of STEPS at the usual rate


@dataclass(frozen=True, slots=True)
class Schedule:
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
    def of(cls, model: nn.Module, origin: Origin, settings: TrainSettings, rows: int) -> Schedule:
        """Take what the settings give, and choose what they leave out.

        Args:
            model: The model, frozen as it will train.
            origin: Where its parameters come from.
            settings: What was asked for.
            rows: Training rows.
        """
        per_epoch = math.ceil(rows / settings.batch_size)
        usual = usual_epochs(per_epoch)
        usual_rate, trains = _rate(model)
        epochs = usual if settings.epochs is None else settings.epochs
        rate = usual_rate if settings.learning_rate is None else settings.learning_rate
        chosen = []
        if settings.learning_rate is None:
            chosen.append(f"learning rate {rate:g} for {trains}")
        if settings.epochs is None:
            chosen.append(f"{epochs:g} epochs for {rows:,} rows")
        steps = math.ceil(epochs * per_epoch)
        is_new = any(parameter.requires_grad and name in origin.new for name, parameter in model.named_parameters())
        warning = ""
        if is_new and (steps < _FEW_STEPS or steps * rate < _LITTLE * STEPS * usual_rate):
            rather = f"--epochs {math.ceil(STEPS / per_epoch)} --lr {usual_rate:g}"
            warning = f"{counted(steps, 'step')} at {rate:g} will hardly move new weights; rather {rather}."
        return cls(epochs, rate, steps, " and ".join(chosen), warning)


def usual_epochs(steps: int) -> float:
    """Passes over the data where none are asked for.

    Args:
        steps: Steps of an epoch.
    """
    return float(min(max(FEWEST_EPOCHS, math.ceil(STEPS / steps)), MOST_EPOCHS))


def _rate(model: nn.Module) -> tuple[float, str]:
    """The usual peak rate, and what trains, in words."""
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trained = [unit for unit in ModelMap.of(model).units if any(flags[name] for name in unit.parameter_names)]
    layers = [unit for unit in trained if unit.kind == "layer"]
    names = [name for unit in layers for name in unit.parameter_names]
    share = sum(sizes[name] for name in names if flags[name]) / max(1, sum(sizes[name] for name in names))
    config = getattr(model, "config", None)
    depth = len(layers)
    if any(unit.kind == "other" or (unit in layers and unit.shared) for unit in trained):  # layers not seen one by one
        depth = max(depth, getattr(config, "num_hidden_layers", None) or 0)
    if all(unit.kind == "head" for unit in trained):
        rate, trains = HEAD_RATE, "the head alone"
    elif not depth:
        rate, trains = MOST_RATE, "no layer"
    elif layers and share < _SMALL_SHARE:
        rate, trains = MOST_RATE, "small parts of layers"
    else:
        rate, trains = min(MOST_RATE, LAYERS_RATE / depth), counted(depth, "layer")
    width = getattr(config, "hidden_size", None) or MEASURED_WIDTH
    return float(f"{rate * min(1.0, MEASURED_WIDTH / width):.1g}"), trains
