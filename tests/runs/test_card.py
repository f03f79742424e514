from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import ModelCard

from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings
from tests.training import tiny

if TYPE_CHECKING:
    from frostline.runs.train_result import TrainResult

HOSTILE = [
    "<script>alert(1)</script>",
    "a`b``c",
    "pipe | in | it",
    "two\nlines\n# a title",
    "[link](javascript:alert(1))",
    "**bold** _and_ &amp;",
    "---\nlicense: evil",
    "\u2028separator",
    "`",
]


def card_of(result: TrainResult) -> tuple[dict[str, Any], str]:
    text = (result.folder / "README.md").read_text(encoding="utf-8")
    return dict(vars(ModelCard(text).data)), text.split("---\n", 2)[2]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> TrainResult:
    folder = tmp_path_factory.mktemp("card")
    table = [{"text": f"{row['text']} {i}", "label": HOSTILE[i % len(HOSTILE)]} for i, row in enumerate(tiny.rows(36))]
    file = tiny.write_jsonl(folder / "rows.jsonl", table)
    return run_training(
        TrainSettings(model=str(bert), data=str(file), eval_data=str(file), epochs=1, freeze="re:.*embeddings.*|a`|x"),
        folder / "out",
    )


def test_names_of_labels_stay_text(hostile: TrainResult) -> None:
    _, body = card_of(hostile)
    (line,) = [line for line in body.splitlines() if "Labels:" in line]
    spans = re.findall(r"`([^`]*)`", line)
    assert len(spans) == len(HOSTILE)
    assert line.count("`") == 2 * len(HOSTILE)  # so that every name is code, from its first sign to its last
    assert re.sub(r"`[^`]*`", "", line) == f"Task: single label classification. Labels: {', ' * (len(HOSTILE) - 1)}."
    assert not any(line.startswith(("# a title", "license")) for line in body.splitlines())
    outside = re.sub(r"`[^`]*`", "", body)
    assert "<" not in outside
    assert "javascript" not in outside


def test_the_plan_stays_text(hostile: TrainResult) -> None:
    _, body = card_of(hostile)
    assert "Plan: `freeze re:.*embeddings.*|a'|x`" in body.splitlines()


def test_every_row_of_a_table_has_its_cells(hostile: TrainResult) -> None:
    _, body = card_of(hostile)
    widths: dict[int, int] = {}
    width = 0
    for number, line in enumerate(body.splitlines()):
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = width or cells
        widths[number] = cells
        assert cells == width, line
    assert len(widths) > 15


def test_the_names_survive_in_the_configuration(hostile: TrainResult) -> None:
    from transformers import AutoConfig

    assert set(AutoConfig.from_pretrained(hostile.folder).id2label.values()) == set(HOSTILE)


def test_the_head_is_metadata_of_the_hub(hostile: TrainResult) -> None:
    head, body = card_of(hostile)
    assert head["library_name"] == "transformers"
    assert head["pipeline_tag"] == "text-classification"
    assert head["base_model"] is None  # a folder of this machine means nothing elsewhere
    assert str(Path(hostile.start.settings.model)) not in body


def test_the_figures_are_those_of_the_run(hostile: TrainResult) -> None:
    _, body = card_of(hostile)
    plain = body.replace("\\", "")
    assert "BertForSequenceClassification fine-tuned from" in plain
    assert str(hostile.proof) in plain
    assert f"## Evaluation on {hostile.start.eval_rows} rows" in plain
    for name, value in hostile.metrics.items():
        assert f"| {name} | {value:.4f} |" in plain
    assert f"| training loss | {hostile.train_loss:.4f} |" in plain


def test_many_labels_are_cut_and_counted(tmp_path: Path, bert: Path) -> None:
    table = [{"text": f"{row['text']} {i}", "label": f"label {i % 30:02}"} for i, row in enumerate(tiny.rows(90))]
    file = tiny.write_csv(tmp_path / "rows.csv", table)
    _, body = card_of(run_training(TrainSettings(model=str(bert), data=str(file), epochs=0.1), tmp_path / "out"))
    assert "`label 19` and 10 more." in body
    assert "label 20" not in body
