"""The model card of a finished run: what was trained, what was frozen, and how that is known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from frostline.base.escaping import printable
from frostline.checkpoints.source import short_name
from frostline.evidence.inspect.inspection import COLUMNS, row_cells
from frostline.runs.train_result import TrainResult

CARD_FILE, TOWER_FILE = "README.md", "tower.svg"
_LABELS_SHOWN = 20
_LOADING = """\
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification

folder = "."  # where this card lies
config = AutoConfig.from_pretrained(folder)
base = AutoModelForSequenceClassification.from_pretrained({base}, config=config)
model = PeftModel.from_pretrained(base, folder)
"""


def write_card(result: TrainResult, folder: Path) -> None:
    """Write the model card of a run into its folder.

    Args:
        result: The run.
        folder: The folder that holds the model.
    """
    from huggingface_hub import ModelCardData

    settings = result.start.settings
    # A folder on this machine means nothing elsewhere; a hub name does.
    base = settings.model if not Path(settings.model).expanduser().is_dir() else None
    head = ModelCardData(
        library_name="peft" if settings.leaves_adapters else "transformers",
        pipeline_tag="text-classification",
        base_model=base,
        tags=["frostline"],
    )
    (folder / TOWER_FILE).write_text(result.start.inspection.to_svg(), encoding="utf-8")
    (folder / CARD_FILE).write_text(f"---\n{head.to_yaml()}\n---\n\n{_body(result)}", encoding="utf-8")


def _body(result: TrainResult) -> str:
    start, settings = result.start, result.start.settings
    named = settings.plan()
    plan = f"Plan: {_code(str(named)) if named else 'none was named.'}"
    if start.schedule is not None:
        plan = "What trained, phase by phase; the table below has as frozen what was so in all of them:"
        plan += "".join(f"\n{number}. {_code(str(phase))}" for number, phase in enumerate(start.schedule.phases, 1))
    lines = [
        f"# {_plain(start.inspection.model_class)} fine-tuned from {_code(short_name(settings.model))}",
        "",
        f"Task: {start.read.schema.problem_type.replace('_', ' ')}. {_labels(start.read.schema.names)}".rstrip(),
        "",
        "## What was frozen",
        "",
        f"Adapters: {_plain(start.adapters)}." if start.adapters else plan,
        "",
        _plain(start.inspection.verdict),
        "",
        f"![The model's units, and which of them train]({TOWER_FILE})",
        "",
        *_table(COLUMNS, (row_cells(row) for row in start.inspection.rows)),
        "",
        f"Proof: {_plain(str(result.proof))}. The digests are in `proof.json`.",
        "",
        "## Training",
        "",
        *_table(
            ("setting", "value"),
            (
                ("training rows", f"{start.rows:,}"),
                ("epochs", f"{start.length.epochs:g}"),
                ("steps", f"{result.steps:,}"),
                ("learning rate", start.rate_in_words),
                ("batch size", str(settings.batch_size)),
                ("seed", str(settings.seed)),
                ("dtype", settings.dtype),
                ("training loss", f"{result.train_loss:.4f}"),
            ),
        ),
        "",
    ]
    if result.metrics and result.baseline is not None:
        same = result.baseline.metrics
        held_out = " held out of the training data" if start.read.held_out is not None else ""
        lines += [
            f"## Evaluation on {start.eval_rows:,} rows{held_out}",
            "",
            *_table(
                ("metric", "value", f"always {result.baseline.answer}"),
                ((name, f"{value:.4f}", f"{same[name]:.4f}") for name, value in result.metrics.items()),
            ),
            "",
        ]
    if settings.leaves_adapters:
        lines += ["## Loading", "", "The folder holds the adapters and the head. They belong on the base:", ""]
        lines += ["```python", *_LOADING.format(base=repr(short_name(settings.model))).splitlines(), "```", ""]
    elif settings.merge:
        lines += ["The adapters are merged into the weights: it loads with plain `from_pretrained`.", ""]
    return "\n".join(lines)


def _labels(names: Iterable[str]) -> str:
    shown = [_code(name) for name in names]
    if not shown:
        return ""
    rest = f" and {len(shown) - _LABELS_SHOWN} more" if len(shown) > _LABELS_SHOWN else ""
    return f"Labels: {', '.join(shown[:_LABELS_SHOWN])}{rest}."


def _table(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    columns = list(titles)
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(_plain(str(cell)) for cell in row)} |" for row in rows)]


def _plain(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    escaped = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped


def _code(text: str) -> str:
    """Text as code: no backtick can end it, and it stays on its line."""
    return "`" + printable(" ".join(text.replace("`", "'").split())) + "`"
