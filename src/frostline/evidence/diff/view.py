"""A diff as a tower: what became of each unit, by how far it moved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from frostline.anatomy.placement import place_named
from frostline.evidence.inspect.tower import Tower, TowerParameter, TowerUnit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.checkpoints.delta.compare import Change
    from frostline.evidence.diff.tensor_diff import TensorDiff
    from frostline.evidence.diff.unit_diff import UnitDiff

# The levels of colour end at these relative changes.
_LEVELS = (1e-4, 1e-3, 1e-2, 1e-1)


def tower_of_diff(
    model_class: str | None, checkpoint: str, units: Sequence[UnitDiff], tensors: Sequence[TensorDiff]
) -> Tower:
    """Draw up the tower of two checkpoints, from the tensors that they hold."""
    drawn = []
    for unit in units:
        place = place_named(unit.name)
        parameters = tuple(_parameter(row) for row in tensors if row.unit == unit.name)
        drawn.append(TowerUnit(unit.name, place.kind, place.stack, place.index, parameters))
    return Tower(model_class or "Tensors", checkpoint, tuple(drawn))


def _parameter(row: TensorDiff) -> TowerParameter:
    shape = (row.base_shape if row.tuned_shape is None else row.tuned_shape) or ()
    dtype = row.tuned_dtype or row.base_dtype or ""
    kind = getattr(torch, dtype, None)
    size = math.prod(shape) * (kind.itemsize if isinstance(kind, torch.dtype) else 0)
    return TowerParameter(row.name, tuple(shape), dtype, size, trains=True, origin="unknown", kinds=(), term=row.name)


def marks_of_diff(units: Sequence[UnitDiff], tensors: Sequence[TensorDiff]) -> list[dict[str, Any]]:
    """Say of each unit what became of it.

    Returns:
        Per unit: ``level``, by which it is coloured; ``text``; and ``facts``, one per tensor.
    """
    return [mark_of(unit) | {"facts": [fact_of(row) for row in tensors if row.unit == unit.name]} for unit in units]


def mark_of(unit: UnitDiff) -> dict[str, Any]:
    """The level and the words of one unit."""
    words = set(unit.counts)
    if words == {"identical"}:
        return {"level": "0", "text": "identical"}
    if words == {"identical", "missing"}:
        return {"level": "0", "text": f"identical, {unit.counts['missing']} missing"}
    if words == {"extra"}:
        return {"level": "new", "text": "new"}
    if words == {"missing"}:
        return {"level": "none", "text": "missing"}
    relative = unit.change.relative_l2 if unit.change is not None else None
    if relative is None:
        return {"level": "1", "text": unit.verdict}
    return {"level": level_of(relative), "text": f"{unit.verdict} · {relative:.2g}"}


def level_of(relative: float) -> str:
    """The level of a relative change: ``1`` for next to nothing, ``5`` for a tenth of the norm and more."""
    if math.isnan(relative):
        return "bad"
    return str(1 + sum(relative >= bound for bound in _LEVELS))


def fact_of(row: TensorDiff) -> str:
    """What became of one tensor, in words."""
    relative = row.change.relative_l2 if row.change is not None and row.verdict != "identical" else None
    moved = "" if relative is None else f", relative L2 {relative:.3g}"
    return f"{row.verdict}{moved}" + (f"; {row.note}" if row.note else "")


UNIT_COLUMNS = ("unit", "verdict", "tensors", "max change", "relative L2", "cosine", "of which")
TENSOR_COLUMNS = ("tensor", "verdict", "max change", "relative L2", "cosine", "note")
FIGURES = ("tensors", "max change", "relative L2", "cosine")
MOST_ROWS, MOST_LINES = 500, 10  # of a table and of a list in a page


def unit_cells(unit: UnitDiff) -> tuple[str, ...]:
    """The texts of one unit's row, in the order of `UNIT_COLUMNS`."""
    counts = ", ".join(f"{count} {word}" for word, count in unit.counts.items()) if len(unit.counts) > 1 else ""
    return (unit.name, unit.verdict, f"{unit.tensors}", *change_cells(unit.change), counts)


def tensor_cells(row: TensorDiff) -> tuple[str, ...]:
    """The texts of one tensor's row, in the order of `TENSOR_COLUMNS`."""
    return (row.name, row.verdict, *change_cells(row.change), row.note)


def change_cells(change: Change | None) -> tuple[str, str, str]:
    """The texts of the figures of a change."""
    if change is None:
        return "-", "-", "-"
    relative, cosine = change.relative_l2, change.cosine
    return (
        f"{change.max_abs:.3g}",
        "-" if relative is None else f"{relative:.3g}",
        "-" if cosine is None else f"{cosine:.6f}",
    )


def sorted_cells(cells: Sequence[str]) -> list[str | dict[str, str]]:
    """Cells of a table that is sorted: figures carry their number, and those that have none come last."""
    return [_cell(text) if place else text for place, text in enumerate(cells)]


def _cell(text: str) -> str | dict[str, str]:
    if text == "-":
        return {"text": text, "value": "-1e999"}
    try:
        float(text)
    except ValueError:
        return text
    return {"text": text, "value": text}


def most_moved(units: Sequence[UnitDiff]) -> int:
    """The place of the unit that moved the farthest; 0 where none did."""
    moved = [unit.change.relative_l2 if unit.change is not None else None for unit in units]
    return max(range(len(units)), key=lambda place: moved[place] or 0.0, default=0)
