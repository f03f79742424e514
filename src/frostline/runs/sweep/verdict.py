"""What the rows of a sweep say, in words, as far as the noise over seeds lets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from frostline.runs.sweep.interval import Interval
from frostline.runs.sweep.row import SweepRow
from frostline.runs.sweep.table import points

CLOSE = 2.0  # points: where the interval leaves open more than that, nothing is said of a depth
_FASTER = 1.1  # times: what saves less is not worth a word

Finding = Literal["loses", "gains", "even", "unclear"]


def finding(difference: Interval) -> Finding:
    """Tell what a paired difference against training everything shows.

    Args:
        difference: In points, of two seeds at least.

    Returns:
        ``loses`` or ``gains`` where the interval lies on one side of 0; ``even`` where it holds 0 and leaves open no
        loss beyond `CLOSE` points; else ``unclear``.
    """
    low, high = difference.low, difference.high
    if low is None or high is None:
        return "unclear"
    if high < 0:
        return "loses"
    if low > 0:
        return "gains"
    return "even" if low >= -CLOSE else "unclear"


def recommended(rows: Sequence[SweepRow]) -> SweepRow | None:
    """The fastest row that loses nothing which shows, and is worth the change; None where there is none.

    Args:
        rows: Of a sweep; the first one has nothing frozen.
    """
    return min(_safe(rows), key=lambda row: row.seconds, default=None)


def _safe(rows: Sequence[SweepRow]) -> list[SweepRow]:
    return [
        row
        for row in rows[1:]
        if row.difference is not None
        and finding(row.difference) in {"even", "gains"}
        and _times(rows[0], row) >= _FASTER
    ]


def verdict(rows: Sequence[SweepRow]) -> str:
    """Say what freezing costs and saves.

    Args:
        rows: Of a sweep; the first one has nothing frozen.
    """
    full, frozen = rows[0], rows[1:]
    seeds = len(full.accuracy.values)
    if not frozen:
        return "Nothing was compared with training everything."
    if seeds < 2:
        return _of_one_seed(full, frozen)
    found = {row.name: finding(row.difference) for row in frozen if row.difference is not None}
    safe, best = _safe(rows), recommended(rows)
    said = []
    if best is not None:
        said.append(_praise(full, best, found[best.name], seeds))
    elif all(found.get(row.name) == "loses" for row in frozen):
        least = max(frozen, key=_mean)
        said.append(f"do not freeze: each depth loses; the least is {_loss(least)}, by {least.action}")
    elif any(found.get(row.name) in {"even", "gains"} for row in frozen):
        said.append("do not freeze for speed: what loses nothing that shows is hardly faster")
    else:
        said.append(f"{seeds} seeds do not tell whether freezing costs anything: train everything, or give more seeds")
    deepest = next((row for row in reversed(frozen) if row not in safe and not row.preset), None)
    if safe and deepest is not None and deepest.difference is not None:
        said.append(_rest(deepest, found[deepest.name]))
    return _sentence("; ".join(said))


def _praise(full: SweepRow, row: SweepRow, what: Finding, seeds: int) -> str:
    difference = row.difference
    shown = f"({points(difference)} points)" if difference is not None else ""
    costs = f"costs nothing that {seeds} seeds can show" if what == "even" else "gains"
    return f"{row.action} {costs} {shown} and trains {_times(full, row):.1f} times faster"


def _rest(row: SweepRow, what: Finding) -> str:
    if what == "loses":
        return f"{row.action} loses {_loss(row)}"
    if row.difference is None or row.difference.low is None or row.difference.high is None:
        return ""
    if what == "unclear":
        return (
            f"of {row.action} it cannot be told: the difference is between "
            f"{row.difference.low:+.1f} and {row.difference.high:+.1f} points"
        )
    return f"{row.action} makes it hardly faster"


def _loss(row: SweepRow) -> str:
    """A loss as an amount: ``7.1 ± 0.9 points``."""
    if row.difference is None:
        return ""
    half = f" ± {row.difference.half:.1f}" if row.difference.half is not None else ""
    return f"{-row.difference.mean:.1f}{half} points"


def _of_one_seed(full: SweepRow, frozen: Sequence[SweepRow]) -> str:
    fastest, best = min(frozen, key=lambda row: row.seconds), max(frozen, key=_mean)
    said = f"one seed shows no noise, so nothing is certain: {best.action} came out best of what freezes "
    said += f"({_signed(best)} points, {_times(full, best):.1f} times faster)"
    if fastest is not best:
        said += f", {fastest.name} fastest ({_signed(fastest)} points, {_times(full, fastest):.1f} times)"
    return _sentence(said)


def _signed(row: SweepRow) -> str:
    return f"{_mean(row):+.1f}"


def _mean(row: SweepRow) -> float:
    return row.difference.mean if row.difference is not None else 0.0


def _times(full: SweepRow, row: SweepRow) -> float:
    return full.seconds / row.seconds


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
