"""Which row of a sweep is trained and saved."""

from __future__ import annotations

from collections.abc import Sequence

from frostline.runs.sweep.result import SweepRow


def picked_row(rows: Sequence[SweepRow], within: float | None) -> SweepRow:
    """Pick a row by its mean accuracy.

    Args:
        rows: Of a sweep, that with nothing frozen first.
        within: Points of accuracy, from 0 to 100, that the fastest may lose against training everything; None for the
            most accurate row, of equal ones the fastest.
    """
    if within is None:
        return max(rows, key=lambda row: (row.accuracy.mean, -row.seconds))
    close = [row for row in rows if row.difference is None or row.difference.mean >= -within]
    return min(close, key=lambda row: row.seconds)
