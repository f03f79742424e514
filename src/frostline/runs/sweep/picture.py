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


@dataclass(frozen=True, slots=True)
class Look:
    """How the picture is drawn.

    Attributes:
        size: Inches.
        front: The colour of what is on the Pareto front.
        other: That of all else.
        rule: That of the grid.
        names: Whether it is listed beside them what the numbers of the points stand for.
    """

    size: tuple[float, float] = (9.0, 4.5)
    front: str = "#0b5fa5"
    other: str = "#8a8a8a"
    rule: str = "#e4e4e4"
    names: bool = True


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
    _number_points(axes, rows)
    if look.names:
        names = "\n".join(f"{number}  {printable(row.name)}" for number, row in enumerate(rows, 1))
        axes.text(1.02, 1, names, transform=axes.transAxes, va="top", fontsize=8, linespacing=1.6, parse_math=False)
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
    what = "What is frozen; " if look.names else ""
    axes.set_title(f"{what}{bars}; line: Pareto front", fontsize=10 if look.names else 9)
    return figure


def _number_points(axes: Any, rows: Sequence[SweepRow]) -> None:
    """Write beside each point the number of its row, from 1."""
    for number, row in enumerate(rows, 1):
        axes.annotate(
            f"{number}",
            (row.seconds, 100 * row.accuracy.mean),
            xytext=(6, -12),
            textcoords="offset points",
            fontsize=10,
        )


def save(rows: Sequence[SweepRow], folder: Path) -> None:
    """Write the picture as PNG and SVG.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure = draw(rows)
    for name in FILES:
        figure.savefig(folder / name, dpi=_DPI)
