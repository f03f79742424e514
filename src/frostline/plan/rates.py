"""The peak learning rate that usually fits what trains (the evidence: ``docs/defaults.md``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.anatomy.modelmap import ModelMap
from frostline.data.messages import counted

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

# Rates for a model of MEASURED_WIDTH. A wider one takes lower rates in proportion: under Adam each weight moves by
# about the rate, so what a layer gives out moves by the rate times the layer's width. What the layers give out adds
# up, so they share LAYERS_RATE.
MEASURED_WIDTH = 384
HEAD_RATE = 1e-2  # the head alone: a linear layer on features that stay as they are
MOST_RATE = 1e-3  # all else at most: one or two layers, the pooler, norms
LAYERS_RATE = 1.5e-3
_SMALL_SHARE = 0.1  # of the layers' parameters: adapters, norms and biases move less than whole layers


def usual_rate(
    model: nn.Module, names: Collection[str] | None = None, *, layer_decay: float = 1.0
) -> tuple[float, str]:
    """Say which peak rate usually fits what trains.

    Args:
        model: The model.
        names: Names of the parameters that train; by default those whose flag is on.
        layer_decay: What a layer's rate is multiplied by for the layer beneath it, and the head's for the top layer.

    Returns:
        The rate, to one significant digit; and what trains, in words.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trains = {name for name, one in model.named_parameters() if one.requires_grad} if names is None else set(names)
    trained = [unit for unit in ModelMap.of(model).units if not trains.isdisjoint(unit.parameter_names)]
    layers = [unit for unit in trained if unit.kind == "layer"]
    inside = [name for unit in layers for name in unit.parameter_names]
    share = sum(sizes[name] for name in inside if name in trains) / max(1, sum(sizes[name] for name in inside))
    config = getattr(model, "config", None)
    depth = len(layers)
    if any(unit.kind == "other" or (unit in layers and unit.shared) for unit in trained):  # layers not seen one by one
        depth = max(depth, getattr(config, "num_hidden_layers", None) or 0)
    if all(unit.kind == "head" for unit in trained):
        rate, said = HEAD_RATE, "the head alone"
    elif not depth:
        rate, said = MOST_RATE, "no layer"
    elif layers and share < _SMALL_SHARE:
        rate, said = MOST_RATE, "small parts of layers"
    else:
        weights = sum(layer_decay**number for number in range(1, depth + 1)) if layer_decay != 1 else depth
        rate, said = min(MOST_RATE, LAYERS_RATE / weights), counted(depth, "layer")
    width = getattr(config, "hidden_size", None) or MEASURED_WIDTH
    return float(f"{rate * min(1.0, MEASURED_WIDTH / width):.1g}"), said
