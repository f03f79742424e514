"""What a page reckons any plan of a model by, as `cost_of` does: plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from frostline.anatomy.modelmap import ModelMap
from frostline.engine.cost.estimate import GUARD, WEIGHTS
from frostline.engine.cost.peak_memory import OF_LAST, ON_THE_WAY
from frostline.engine.cost.units import unit_costs, unit_products

if TYPE_CHECKING:
    from torch import nn

    from frostline.engine.cost.batch_rows import Rows
    from frostline.engine.cost.machines import Speeds

_OF_UNIT = ("kind", "flops", "per_row", "saved", "heads", "width")


def cost_basis(
    model: nn.Module, rows: Rows, speeds: Speeds, everything: float, *, keeps: bool, is_half: bool
) -> dict[str, Any]:
    """Draw up what ``report/static/cost.js`` reckons by: times per epoch, and activations, of whatever is frozen.

    Args:
        model: Names and shapes.
        rows: What it trains on.
        speeds: Of the machine.
        everything: Seconds of an epoch that trains everything.
        keeps: Whether frozen modules stay in eval mode, so that what they give can be kept.
        is_half: Whether matrix products run in bf16 or fp16.
    """
    names = [name for unit in ModelMap.of(model).units for name in unit.parameter_names]
    places = {id(model.get_parameter(name)): place for place, name in enumerate(names)}
    units = [
        {name: getattr(unit, name) for name in _OF_UNIT}
        | {"products": [(places[id(model.get_parameter(name))], flops) for name, flops in products.items()]}
        for unit, products in zip(unit_costs(model), unit_products(model), strict=True)
    ]
    return {
        "units": units,
        "rows": asdict(rows) | {"met": rows.met},
        "speeds": asdict(speeds),
        "everything": everything,
        "keeps": keeps,
        "is_half": is_half,
        "constants": {"guard": GUARD, "weights": WEIGHTS, "on_the_way": ON_THE_WAY, "of_last": OF_LAST},
    }
