"""The picture of a sweep: accuracy against the time of a run, with the Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from frostline.runs.sweep.result import SweepResult

FILES = ("sweep.png", "sweep.svg")
_SIZE = (8.0, 5.0)  # inches
_DPI = 150
_LEFT_OF = {
    True: 0.22,
    False: 0.75,
}  # of the longest time: from there on the name of a point on the front, or not on it
_FRONT, _OTHER = "#0b5fa5", "#8a8a8a"


def draw(result: SweepResult) -> Figure:
    """Draw a point per row, its interval over seeds as a bar, and a line through those on the Pareto front.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "A picture needs matplotlib, which is not installed.\nInstall it: pip install 'frostline[plot]'"
        ) from None
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes: Any = figure.subplots()
    front = result.pareto
    for row in result.rows:
        color = _FRONT if row in front else _OTHER
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
    axes.plot(
        [row.seconds for row in front], [100 * row.accuracy.mean for row in front], color=_FRONT, linewidth=1, zorder=0
    )
    _name_points(axes, result)
    axes.set_xlabel("time of one run, seconds")
    axes.set_ylabel("accuracy, %")
    axes.set_xlim(left=0)
    axes.margins(x=0.15, y=0.12)
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    seeds = len(result.rows[0].accuracy.values)
    bars = f"bars: 95 % over {seeds} seeds; " if seeds > 1 else "one seed; "
    axes.set_title(f"What is frozen ({bars}blue: Pareto front)", fontsize=10)
    return figure


def _name_points(axes: Any, result: SweepResult) -> None:
    """Write beside each point what is frozen: where the front leaves room, and within the picture."""
    longest, front = max(row.seconds for row in result.rows), result.pareto
    for row in result.rows:
        # The front comes from the lower left; what is not on it lies beneath.
        left = row.seconds > _LEFT_OF[row in front] * longest
        axes.annotate(
            row.name.replace("$", r"\$"),  # a pair of them would begin a formula
            (row.seconds, 100 * row.accuracy.mean),
            xytext=(-6 if left else 6, 5 if left and row in front else -12),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=8,
        )


def save(result: SweepResult, folder: Path) -> None:
    """Write the picture as PNG and SVG.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure = draw(result)
    for name in FILES:
        figure.savefig(folder / name, dpi=_DPI)
