"""Rows of a sweep with made-up numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.runs.sweep.interval import Interval
from frostline.runs.sweep.result import SweepRow

if TYPE_CHECKING:
    from collections.abc import Sequence


def rows(**accuracies: tuple[Sequence[float], float]) -> tuple[SweepRow, ...]:
    """One row per name with its accuracies in percent and its seconds; the first one has nothing frozen."""
    full = Interval.of([value / 100 for value in next(iter(accuracies.values()))[0]])
    made: list[SweepRow] = []
    for name, (values, seconds) in accuracies.items():
        accuracy = Interval.of([value / 100 for value in values])
        made.append(
            SweepRow(
                freeze=name if made else "",
                name=name,
                accuracy=accuracy,
                macro_f1=accuracy,
                difference=accuracy.minus(full) if made else None,
                seconds=seconds,
                peak_bytes=100_000_000,
                trainable=0.5,
                learning_rate=1e-4,
            )
        )
    return tuple(made)
