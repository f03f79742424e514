"""What a sweep found: a row per depth, which of them are worth their cost, and a verdict in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.base.json import finite, picked
from frostline.base.plain_table import plain_table
from frostline.engine.cost.costs import bytes_text, seconds_text
from frostline.runs.sweep.interval import Interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = ("frozen", "accuracy", "against all", "macro F1", "time", "memory", "trains", "rate")
RIGHT_ALIGNED = COLUMNS[1:]
MINOR = ("rate", "macro F1", "memory")


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


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found; printed, it is a table and the verdict.

    Attributes:
        rows: One per depth, that with nothing frozen first.
        verdict: What they say, in words, as far as the noise lets them.
        model: What was trained.
        train_rows: Training rows.
        eval_rows: Evaluation rows.
        epochs: Passes over the data of each run.
        seconds: Of all runs and the shared pass, those before an interruption included.
        shared_seconds: Of them, the pass that filled the stores of all depths.
        notes: What else there is to know.
        folder: Where the results are; None where they are nowhere.
    """

    rows: tuple[SweepRow, ...]
    verdict: str
    model: str
    train_rows: int
    eval_rows: int
    epochs: float
    seconds: float
    shared_seconds: float
    notes: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def pareto(self) -> tuple[SweepRow, ...]:
        """The rows that no other one beats in accuracy and time at once, the fastest first."""
        return pareto(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        rows = {
            "rows": [row.to_dict() for row in self.rows],
            "pareto": [row.preset or row.freeze for row in self.pareto],
        }
        rest = picked(
            self,
            *("verdict", "model", "train_rows", "eval_rows", "epochs", "seconds", "shared_seconds", "notes"),
        )
        whole: dict[str, Any] = finite(rows | rest)
        return whole

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a table of pandas, intervals as columns ``accuracy_mean``, ``accuracy_low``, ``accuracy_high``.

        Raises:
            ImportError: If pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame([_flat(row.to_dict()) for row in self.rows])

    def plot(self) -> Figure:
        """Draw accuracy against time, with the Pareto front.

        Raises:
            MissingExtraError: If matplotlib is not installed.
        """
        from frostline.runs.sweep.picture import draw

        return draw(self)

    def __str__(self) -> str:
        return "\n".join([*plain_table(COLUMNS, map(cells, self.rows), RIGHT_ALIGNED), "", *self.lines()])

    def lines(self) -> Iterator[str]:
        """The verdict, and what stands beneath the table."""
        yield self.verdict
        yield ""
        seeds = len(self.rows[0].accuracy.values)
        yield (
            f"{self.train_rows:,} training rows, {self.epochs:g} epochs, {seeds} seed{'s' * (seeds != 1)}, "
            f"{self.eval_rows:,} evaluation rows (one is {100 / self.eval_rows:.2g} points); "
            f"{seconds_text(self.seconds)} in all, {seconds_text(self.shared_seconds)} of them the shared pass."
        )
        if seeds > 1:
            yield "± is half of a 95 % interval over seeds; differences are paired, seed by seed."
        yield f"Worth their time: {'; '.join(row.name for row in self.pareto)}."
        yield from self.notes


def pareto(rows: Sequence[SweepRow]) -> tuple[SweepRow, ...]:
    """The rows that no other one beats in mean accuracy and time at once, the fastest first."""
    front: list[SweepRow] = []
    for row in sorted(rows, key=lambda row: (row.seconds, -row.accuracy.mean)):
        if not front or row.accuracy.mean > front[-1].accuracy.mean:
            front.append(row)
    return tuple(front)


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


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{part}": value[part] for part in ("mean", "low", "high")}
        else:
            flat[name] = value
    return flat
