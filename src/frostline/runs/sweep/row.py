"""A row of a sweep: what one depth of the frost line came to; and which rows are worth their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frostline.base.json import picked
from frostline.runs.sweep.interval import Interval


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One depth of the frost line.

    Attributes:
        freeze: What is frozen, as a selector; ``""`` for nothing, and for a schedule.
        name: The same in words.
        accuracy: Over seeds, from 0 to 1.
        macro_f1: Likewise.
        difference: Of the accuracy against training everything, seed by seed, in points; None for that row itself.
        seconds: Of one run, the mean over seeds: training, and its own part of filling the store.
        peak_bytes: The most memory that a run took on top of what was in use before; None where that is not known.
        trainable: Share of the parameters that train, 0 to 1.
        learning_rate: The peak rate; None for that which each phase of a schedule usually has.
        preset: The name of the schedule; ``""`` for one plan throughout.
    """

    freeze: str
    name: str
    accuracy: Interval
    macro_f1: Interval
    difference: Interval | None
    seconds: float
    peak_bytes: int | None
    trainable: float
    learning_rate: float | None
    preset: str = ""

    @property
    def action(self) -> str:
        """What the row does, in words."""
        return f"the schedule {self.preset}" if self.preset else f"freezing {self.name}"

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        return picked(
            self,
            *("freeze", "name", "accuracy", "macro_f1", "difference", "seconds", "peak_bytes", "trainable"),
            *("learning_rate", "preset"),
        )


def pareto(rows: Sequence[SweepRow]) -> tuple[SweepRow, ...]:
    """The rows that no other one beats in mean accuracy and time at once, the fastest first."""
    front: list[SweepRow] = []
    for row in sorted(rows, key=lambda row: (row.seconds, -row.accuracy.mean)):
        if not front or row.accuracy.mean > front[-1].accuracy.mean:
            front.append(row)
    return tuple(front)
