"""What a sweep compares: the depths of the frost line of a model, single bands of layers, and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.anatomy.modelmap import ModelMap, Unit
from frostline.anatomy.origin import Origin
from frostline.errors import SettingsError
from frostline.plan.describe import describe

_BANDS = 3  # lower, middle and upper layers


@dataclass(frozen=True, slots=True)
class Depth:
    """One plan of a sweep, or one schedule.

    Attributes:
        freeze: What is frozen, as a selector; ``""`` for nothing, and for a schedule.
        name: The same in words.
        layers: How many layers train; of a schedule, all of them.
        preset: The name of the schedule; ``""`` for one plan throughout.
    """

    freeze: str
    name: str
    layers: int
    preset: str = ""


def depths_of(
    anatomy: ModelMap,
    origin: Origin,
    asked: Sequence[int] | None = None,
    *,
    bands: bool = False,
    presets: Sequence[str] = (),
) -> tuple[Depth, ...]:
    """List what a sweep compares, from training everything, which all else is compared with, to the head alone.

    What the checkpoint lacks trains in each of them: it is random.

    Args:
        anatomy: The model's anatomy.
        origin: Where its parameters come from.
        asked: Numbers of frozen layers, the lowest ones and the embeddings; as many as there are for the head alone.
            None for nothing frozen, the embeddings, each layer, and the head alone.
        bands: Whether bands of layers that train alone, with the head, are among them.
        presets: Names of schedules that are among them, at the end.

    Raises:
        SettingsError: If the model has not so many layers, or nothing in it can be frozen.
    """
    body = [unit for unit in anatomy.units if unit.kind != "head"]
    layers = [unit for unit in body if unit.kind == "layer"]
    if not layers:
        raise SettingsError(f"No layers were found in {anatomy.model_class}, so there are no depths to compare.")
    wrong = [count for count in asked or () if not 0 <= count <= len(layers)]
    if wrong:
        raise SettingsError(
            f"--depths names {wrong[0]}; {anatomy.model_class} has {len(layers)} layers, of which 0 to {len(layers)} "
            "can be frozen."
        )
    counts = sorted(set(range(len(layers) + 1) if asked is None else asked))
    found = [Depth("", "nothing", len(layers))]
    for count in counts:
        frozen = body if count == len(layers) else _beneath(body, layers[count])
        found.append(_depth(anatomy, origin, frozen, len(layers) - count))
    if bands:
        size = -(-len(layers) // _BANDS)
        for begin in range(0, len(layers), size):
            band = layers[begin : begin + size]
            found.append(_depth(anatomy, origin, [unit for unit in body if unit not in band], len(band), band))
    plans = tuple({depth.freeze: depth for depth in reversed(found)}.values())[::-1]
    schedules = (Depth("", f"schedule {name}", len(layers), name) for name in dict.fromkeys(presets))
    return (*plans, *schedules)


def _beneath(units: Sequence[Unit], unit: Unit) -> Sequence[Unit]:
    return units[: units.index(unit)]


def _depth(anatomy: ModelMap, origin: Origin, frozen: Sequence[Unit], layers: int, band: Sequence[Unit] = ()) -> Depth:
    names = {name for unit in frozen for name in unit.parameter_names if origin.of(name) != "new"}
    freeze = describe(anatomy, names)
    if band:
        trained = {name for unit in band for name in unit.parameter_names}
        return Depth(freeze, f"all but {describe(anatomy, trained)} and the head", layers)
    return Depth(freeze, freeze if layers else "all but the head", layers)
