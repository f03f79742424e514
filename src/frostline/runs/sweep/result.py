"""What a sweep found: a row per depth, which of them are worth their cost, and a verdict in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from frostline.base.escaping import printable
from frostline.base.json import finite, picked
from frostline.base.plain_table import plain_table
from frostline.checkpoints.source import short_name
from frostline.engine.cost.costs import seconds_text
from frostline.errors import MissingExtraError
from frostline.report.charts import INK, LINES, RULE, inline
from frostline.report.page import fragment, render
from frostline.runs.sweep.picture import Look, draw
from frostline.runs.sweep.row import SweepRow, pareto
from frostline.runs.sweep.table import COLUMNS, RIGHT_ALIGNED, cells, sorted_by
from frostline.runs.sweep.verdict import recommended
from frostline.runs.train_settings import command_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ON_PAGE = Look(size=(4.8, 3.5), front=LINES[0], other=INK, rule=RULE, names=False)
_CHOICE = Markup(
    '<label><input class="needs-script" type="radio" name="choice" data-texts="{}"{}> <span>{}</span></label>'
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
        settings: What all runs have in common, as ``frostline train`` takes it.
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
    settings: Mapping[str, Any] = field(default_factory=dict)

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
            "settings",
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
        return draw(self.rows)

    def to_html(self) -> str:
        """The sweep as a page: accuracy against time, the rows to sort, and the command of the one that is chosen."""
        chart, lacking = self._chart()
        chosen = recommended(self.rows) or self.rows[0]
        return render(
            "sweep.html",
            kind="sweep",
            title=f"What freezing costs and saves: {short_name(self.model)}",
            verdict=self.verdict,
            chart=chart,
            columns=(*COLUMNS, "Pareto front"),
            rows=[self._cells(place, is_chosen=row is chosen) for place, row in enumerate(self.rows)],
            right=RIGHT_ALIGNED,
            chosen=self._texts(chosen),
            notes_of=[line for line in [*lacking, *self.lines()] if line not in {"", self.verdict}],
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the picture, and what stands beneath the table."""
        chart, lacking = self._chart(alone=True)
        rows = (f"{number}. {row.name}: {cells(row)[1]} %" for number, row in enumerate(self.rows, 1))
        return fragment(self.verdict, chart, ["; ".join(rows), *lacking, *filter(None, list(self.lines())[1:])])

    def _chart(self, *, alone: bool = False) -> tuple[Markup, list[str]]:
        """The picture; or what is lacking for it."""
        said = "; ".join(
            f"{row.name} {100 * row.accuracy.mean:.1f} % in {seconds_text(row.seconds)}" for row in self.rows
        )
        try:
            title = f"Accuracy against the time of one run: {said}"
            return inline(lambda: draw(self.rows, _ON_PAGE), title, alone=alone), []
        except MissingExtraError as error:
            return Markup(), [str(error)]

    def _cells(self, place: int, *, is_chosen: bool) -> list[Any]:
        """The cells of a row on the page: the first one chooses it."""
        row = self.rows[place]
        checked = Markup(" checked") if is_chosen else ""
        choice = _CHOICE.format(json.dumps(self._texts(row)), checked, f"{place + 1}. {printable(row.name)}")
        values = zip(cells(row)[1:], sorted_by(row), strict=True)
        rest = [{"text": text} if value is None else {"text": text, "value": value} for text, value in values]
        return [{"text": choice, "value": place}, *rest, "yes" if row in self.pareto else "no"]

    def _texts(self, row: SweepRow) -> dict[str, str]:
        """What there is to copy of a row: its selector, and the command that trains so."""
        named = {"freeze": row.freeze or None, "schedule": row.preset or None, "learning_rate": row.learning_rate}
        given = {"model": self.model, "epochs": self.epochs} | dict(self.settings)
        return {"selector": row.freeze, "command": command_of(given | named)}

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


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{part}": value[part] for part in ("mean", "low", "high")}
        else:
            flat[name] = value
    return flat
