"""The page of a run: what was frozen and stayed, what moved how far, curves, timings, and how to do it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.origin import Origin
from frostline.base.json import is_number
from frostline.checkpoints.source import short_name
from frostline.errors import FrostlineError, MissingExtraError
from frostline.evidence.diff.diff import Diff, diff
from frostline.evidence.diff.view import fact_of, level_of
from frostline.evidence.inspect.inspection import open_skeleton
from frostline.evidence.inspect.tower import Tower, TowerUnit, tower_of
from frostline.report.charts import curves
from frostline.report.page import fragment, render
from frostline.report.svg import tower_svg
from frostline.report.tower_data import packed
from frostline.runs.run_files import RunFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    from markupsafe import Markup

_SCORES = ("accuracy", "macro_f1", "micro_f1", "rmse", "mae", "pearson")
_ACROSS = 70  # signs of a band's name that stand beside one another over a whole chart
_LONGEST = 300  # signs of a text
_FIGURES = (
    "rows", "eval_rows", "epochs", "steps", "learning_rate", "train_loss", "seconds", "best_epoch", "chosen", "warning",
)  # fmt: skip


def run_page(folder: str | PathLike[str], texts: Sequence[str] | None = None) -> str:
    """Write the page of a run from the files that it left.

    How far units moved is measured against the base, where that can be read still.

    Args:
        folder: What ``frostline train`` left.
        texts: Of the evaluation rows, of which those that it got most wrong are shown; None to show none.

    Raises:
        ModelError: If it is no such folder, or a file cannot be read.
    """
    run = RunFiles.read(folder)
    tower, marks, notes = _moved(run)
    metrics = run.metrics
    charts, lacking = _charts(run)
    return render(
        "run.html",
        kind="training run",
        title=f"{run.folder.resolve().name}: {tower.model_class} from {short_name(run.base or 'an unknown base')}",
        verdict=f"Proof: {run.proof.get('verdict', 'none')}.",
        svg=tower_svg(tower.to_dict(), marks),
        data={"tower": packed(tower.to_dict()), "marks": marks, "costs": None},
        notes_of=[*notes, *lacking, *_said(metrics, texts)],
        wrong=[] if texts is None else _wrong(run, texts),
        phases=[(f"{number}", train, f"{began:.3g} to {ended:.3g}") for number, train, began, ended in run.phases()],
        charts=charts,
        result=_results(metrics),
        evaluations=_evaluations(run),
        labels=run.labels,
        confusion=run.confusion(),
        proof=run.units[::-1],
        engine=list(_engine(metrics.get("engine"))),
        figures=[(name.replace("_", " "), _short(metrics[name])) for name in _FIGURES if metrics.get(name)],
        command=run.command(),
    )


def run_fragment(folder: str | PathLike[str]) -> str:
    """Write what a notebook shows of a run: the proof's verdict and the tower."""
    run = RunFiles.read(folder)
    tower, marks, notes = _moved(run)
    return fragment(f"Proof: {run.proof.get('verdict', 'none')}.", tower_svg(tower.to_dict(), marks), notes)


def _moved(run: RunFiles) -> tuple[Tower, list[dict[str, Any]], list[str]]:
    """The tower of a run, what became of each unit, and what could not be told."""
    model, _ = open_skeleton(str(run.folder))
    frozen = run.frozen
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    found, lacking = _compared(run)
    tower = tower_of(model, ModelMap.of(model), Origin(None))
    return tower, [_mark(unit, run.verdicts.get(unit.name, ""), found) for unit in tower.units], lacking


def _compared(run: RunFiles) -> tuple[Diff | None, list[str]]:
    """The run's folder beside its base; or why they cannot be compared."""
    if run.base is None:
        return None, ["How far units moved is not shown: the run's files name no base."]
    try:
        return diff(run.base, run.folder), []
    except FrostlineError as error:
        return None, [f"How far units moved is not shown, as base and run cannot be compared: {error}"]


def _mark(unit: TowerUnit, verdict: str, found: Diff | None) -> dict[str, Any]:
    """What became of a unit, by the proof and by how far it moved from the base."""
    rows = [] if found is None else [row for row in found.tensors if row.unit == unit.name]
    by_name = {row.parameter: row for row in rows}
    facts = [fact_of(by_name[one.name]) if one.name in by_name else "" for one in unit.parameters]
    change = next((row.change for row in found.units if row.name == unit.name), None) if found is not None else None
    relative = change.relative_l2 if change is not None else None
    is_new = bool(rows) and all(row.verdict == "extra" for row in rows)
    if verdict == "frozen":
        level, text = "0", "unchanged bit for bit"
    elif verdict in {"drifted", "unmoved"}:
        level, text = "bad", "moved although frozen" if verdict == "drifted" else "unmoved though it may train"
    elif is_new:
        level, text = "new", "new, trained"
    elif relative is not None:
        level, text = level_of(relative), f"{verdict} · {relative:.2g}"
    else:
        level, text = "3" if verdict else "none", verdict or "not in the proof"
    return {"level": level, "text": text, "facts": facts}


def _charts(run: RunFiles) -> tuple[list[tuple[str, Markup]], list[str]]:
    """Curves of loss and metrics; or what is lacking for them."""
    bands = [(_band(phase, run), *phase[2:]) for phase in run.phases()]
    losses = {"training": run.points("loss"), "evaluation": run.points("eval_loss")}
    scores = {name.replace("_", " "): run.points(f"eval_{name}") for name in _SCORES}
    drawn = []
    try:
        for title, lines in (("Loss", losses), ("Evaluation", scores)):
            there = {name: points for name, points in lines.items() if points}
            if there:
                drawn.append((title, curves(f"{title}: {', '.join(there)} by epoch", there, bands)))
    except MissingExtraError as error:
        return [], [str(error)]
    return drawn, []


def _band(phase: tuple[int, str, float, float], run: RunFiles) -> str:
    """What a band is called: its number, and what trains where there is room for that."""
    number, train, began, ended = phase
    room = _ACROSS * (ended - began) / max(1e-9, run.phases()[-1][3])
    name = f"{number}: {train}"
    return name if len(name) <= room else f"{number}"


def _wrong(run: RunFiles, texts: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """The rows that it got most wrong: loss, label, what it gave, and the text."""
    return [
        (f"{loss:.2f}", true, given, _cut(texts[place]))
        for place, true, given, loss in run.most_wrong()
        if place < len(texts)
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _evaluations(run: RunFiles) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row per evaluation, as a table beside the curves."""
    names = [name for name in ("loss", *_SCORES) if run.points(f"eval_{name}")]
    values = [dict(run.points(f"eval_{name}")) for name in names]
    epochs = sorted({epoch for own in values for epoch in own})
    rows = [(f"{epoch:g}", *(f"{own[epoch]:.4f}" if epoch in own else "-" for own in values)) for epoch in epochs]
    return ("epoch", *(name.replace("_", " ") for name in names)), rows


def _results(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Metrics of the kept model beside those of the same answer for every row."""
    kept, same = metrics.get("eval"), metrics.get("baseline")
    if not isinstance(kept, dict) or not isinstance(same, dict):
        return []
    return [(name.replace("_", " "), _figure(value), _figure(same.get(name))) for name, value in kept.items()]


def _figure(value: Any) -> str:
    return f"{value:.4f}" if is_number(value) else "-"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _said(metrics: Mapping[str, Any], texts: Sequence[str] | None) -> Iterator[str]:
    """What the run said itself, and what is not shown."""
    yield from (str(metrics[name]) for name in ("warning", "shortfall") if metrics.get(name))
    if metrics.get("eval") and texts is None:
        yield "The texts that it got most wrong are not shown: a run's folder holds none. 'train --html' shows them."


def _engine(engine: Any) -> Iterator[str]:
    """What the engine did, and what it took."""
    if not isinstance(engine, dict):
        yield "The engine was off."
        return
    yield str(engine.get("line", ""))
    if engine.get("computed"):
        yield f"Filled the store: {engine['computed']} rows in {engine.get('seconds')} s."
    choice = engine.get("choice")
    places = choice.get("alternatives") if isinstance(choice, dict) else None
    if isinstance(places, list) and all(isinstance(one, dict) for one in places):
        said = ", ".join(f"{one.get('where')} {_figure(one.get('seconds'))} s" for one in places)
        yield f"Reckoned for the frozen part, by where its activations are kept: {said}."
    guard = engine.get("guard")
    if isinstance(guard, dict) and guard.get("compared"):
        yield f"Repeated plainly and compared: {guard['compared']} calls, in {guard.get('seconds')} s."
