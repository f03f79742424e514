"""The table of a sweep."""

from __future__ import annotations

from frostline.engine.cost.costs import bytes_text, seconds_text
from frostline.runs.sweep.interval import Interval
from frostline.runs.sweep.row import SweepRow

COLUMNS = ("frozen", "accuracy", "against all", "macro F1", "time", "memory", "trains", "rate")
RIGHT_ALIGNED = COLUMNS[1:]
MINOR = ("rate", "macro F1", "memory")


def cells(row: SweepRow) -> tuple[str, ...]:
    """The cells of a row, for `COLUMNS`."""
    return (
        row.name,
        _percent(row.accuracy),
        points(row.difference) if row.difference is not None else "",
        _percent(row.macro_f1),
        seconds_text(row.seconds),
        bytes_text(row.peak_bytes) if row.peak_bytes is not None else "",
        f"{100 * row.trainable:.3g} %",
        f"{row.learning_rate:g}" if row.learning_rate is not None else "by phase",
    )


def points(difference: Interval) -> str:
    """A difference in points: ``-1.2 ± 0.8``."""
    mean = round(difference.mean, 1) + 0.0  # no -0.0
    return f"{mean:+.1f}" + (f" ± {difference.half:.1f}" if difference.half is not None else "")


def _percent(interval: Interval) -> str:
    half = f" ± {100 * interval.half:.1f}" if interval.half is not None else ""
    return f"{100 * interval.mean:.1f}{half}"


def sorted_by(row: SweepRow) -> tuple[float, ...]:
    """What the cells but the first are sorted by."""
    return (
        row.accuracy.mean,
        row.difference.mean if row.difference is not None else 0.0,
        row.macro_f1.mean,
        row.seconds,
        row.peak_bytes if row.peak_bytes is not None else -1.0,
        row.trainable,
        row.learning_rate if row.learning_rate is not None else -1.0,
    )
