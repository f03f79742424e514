"""Measurements made up for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.results import Measurement, Repeat, result_of

if TYPE_CHECKING:
    from benchmarks.row import Row

MEASUREMENT = Measurement(
    seconds=2.0,
    accuracy=0.75,
    peak_bytes=900 * 2**20,
    rise_bytes=100 * 2**20,
    limit_seconds=1.0,
    rows=64,
    tokens=1_600,
    source="made-up texts",
)


def repeat(ours: float, theirs: float | None) -> Repeat:
    """A repeat in which the sides took so many seconds."""
    peer = None if theirs is None else replace(MEASUREMENT, seconds=theirs, accuracy=0.5, limit_seconds=None)
    return Repeat(replace(MEASUREMENT, seconds=ours), peer)


def result(row: Row, *ratios: float) -> dict[str, Any]:
    """The result of a row whose repeats had these speed ratios."""
    return result_of(row, [repeat(2.0, 2.0 * ratio) for ratio in ratios], 2)
