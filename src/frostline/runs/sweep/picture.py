"""The picture of a sweep: accuracy against the time of a run, with the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.base.escaping import printable
from frostline.errors import MissingExtraError
from frostline.runs.sweep.row import pareto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from frostline.runs.sweep.row import SweepRow

FILES = ("sweep.png", "sweep.svg")
_DPI = 150
_LEFT_OF = {
    True: 0.22,
    False: 0.75,
}  # of the longest time: from there on the name of a point on the front, or not on it


@dataclass(frozen=True, slots=True)
class Look:
    """How the picture is drawn.

    Attributes:
        size: Inches.
        front: The colour of what is on the Pareto front.
        other: That of all else.
        rule: That of the grid.
        numbered: Whether points are called by the row's number, from 1, instead of by what is frozen.
    """

    size: tuple[float, float] = (8.0, 5.0)
    front: str = "#0b5fa5"
    other: str = "#8a8a8a"
    rule: str = "#e4e4e4"
    numbered: bool = False


def draw(rows: Sequence[SweepRow], look: Look | None = None) -> Figure:
    """Draw a point per row, its interval over seeds as a bar, and a line through those on the Pareto front.

    Args:
        rows: Of a sweep.
        look: How; None as for a file.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "A picture needs matplotlib, which is not installed.\nInstall it: pip install 'frostline[plot]'"
        ) from None
    look = look or Look()
    figure = Figure(figsize=look.size, layout="constrained")
    axes: Any = figure.subplots()
    front = pareto(rows)
    for row in rows:
        color = look.front if row in front else look.other
        half = row.accuracy.half
        axes.errorbar(
            row.seconds,
            100 * row.accuracy.mean,
            yerr=100 * half if half is not None else None,
            fmt="o" if row in front else "s",
            color=color,
            capsize=3,
            elinewidth=1,
        )
    points = zip(*((row.seconds, 100 * row.accuracy.mean) for row in front), strict=True)
    axes.plot(*points, color=look.front, linewidth=1, zorder=0)
    _name_points(axes, rows, numbered=look.numbered)
    axes.set_xlabel("time of one run, seconds")
    axes.set_ylabel("accuracy, %")
    axes.set_xlim(left=0)
    axes.margins(x=0.15, y=0.12)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, -2), min(top, 102))  # intervals of few seeds may go beyond what there is
    axes.grid(visible=True, color=look.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    seeds = len(rows[0].accuracy.values)
    bars = f"bars: 95 % over {seeds} seeds" if seeds > 1 else "one seed"
    what = "" if look.numbered else "What is frozen; "
    axes.set_title(f"{what}{bars}; line: Pareto front", fontsize=9 if look.numbered else 10)
    return figure


def _name_points(axes: Any, rows: Sequence[SweepRow], *, numbered: bool) -> None:
    """Write beside each point what is frozen: where the front leaves room, and within the picture."""
    longest, front = max(row.seconds for row in rows), pareto(rows)
    for number, row in enumerate(rows, 1):
        # The front comes from the lower left; what is not on it lies beneath.
        left = row.seconds > _LEFT_OF[row in front] * longest
        axes.annotate(
            f"{number}" if numbered else printable(row.name),
            (row.seconds, 100 * row.accuracy.mean),
            parse_math=False,  # a pair of $ would begin a formula
            xytext=(-6 if left else 6, 5 if left and row in front else -12),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=10 if numbered else 8,
        )


def save(rows: Sequence[SweepRow], folder: Path) -> None:
    """Write the picture as PNG and SVG.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure = draw(rows)
    for name in FILES:
        figure.savefig(folder / name, dpi=_DPI)
