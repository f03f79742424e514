"""Which rows a run trains on, which judge it, and which it holds out."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from frostline.errors import DataError
from frostline.runs.rows import HELD_OUT_FILE, read_rows
from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def in_order(tmp_path: Path) -> Path:
    """Sixty rows, one class after the other, each with a text of its own."""
    rows = [{"text": f"film {row}", "label": "good" if row < 40 else "bad"} for row in range(60)]
    return tiny.write_csv(tmp_path / "sorted.csv", rows)


def settings(data: Path, **changes: Any) -> TrainSettings:
    return TrainSettings(model="unused", data=str(data), **changes)


def texts(rows: Any) -> list[str]:
    return list(rows.dataset["text"][:])


def test_the_limit_counts_for_training_and_evaluation(in_order: Path) -> None:
    rows = read_rows(settings(in_order, eval_data=str(in_order), limit=10))
    assert rows.test is not None
    for part in (rows.train, rows.test):
        assert Counter(part.dataset["label"][:]) == {"good": 5, "bad": 5}
    assert rows.available == (60, 60)
    assert rows.held_out is None
    other = read_rows(settings(in_order, limit=10, seed=1))
    assert texts(other.train) != texts(rows.train)


def test_labels_beyond_the_limit_are_known(tmp_path: Path) -> None:
    data = tiny.write_csv(tmp_path / "many.csv", [{"text": f"film {row}", "label": row % 20} for row in range(60)])
    rows = read_rows(settings(data, limit=8))
    assert len(rows.train) == 8
    assert rows.schema.num_labels == 20


def test_a_share_is_held_out(in_order: Path) -> None:
    rows = read_rows(settings(in_order, eval_data="10%"))
    assert rows.test is not None
    assert rows.held_out is not None
    assert Counter(rows.test.dataset["label"][:]) == {"good": 4, "bad": 2}
    assert not set(texts(rows.train)) & set(texts(rows.test))
    assert len(rows.train) + len(rows.test) == 60
    assert texts(rows.test) == [f"film {number - 1}" for number in rows.held_out]
    limited = read_rows(settings(in_order, eval_data="10%", limit=4))
    assert limited.held_out == rows.held_out
    assert limited.available == (54, 6)
    assert not set(texts(limited.train)) & set(texts(rows.test))


def test_nothing_is_held_out_by_itself(in_order: Path) -> None:
    rows = read_rows(settings(in_order))
    assert (len(rows.train), rows.test, rows.held_out, rows.available) == (60, None, None, (60, 0))


def test_a_bad_row_counts_wherever_it_is(tmp_path: Path) -> None:
    data = tiny.write_csv(tmp_path / "bad.csv", [*tiny.rows(9), {"text": "", "label": "good"}])
    with pytest.raises(DataError, match="row 10"):
        read_rows(settings(data, limit=4))


def test_the_run_lists_what_it_held_out(tmp_path: Path, bert: Path, in_order: Path) -> None:
    given = settings(in_order, eval_data="10%", epochs=1, freeze="backbone", seed=7)
    result = run_training(TrainSettings(**given.to_dict() | {"model": str(bert)}), tmp_path / "out")
    listed = json.loads((result.folder / HELD_OUT_FILE).read_text(encoding="utf-8"))
    assert listed == {
        "data": str(in_order),
        "share": "10%",
        "seed": 7,
        "rows_from_1": list(read_rows(given).held_out or ()),
    }
    assert result.start.eval_rows == 6
    assert result.metrics
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert "## Evaluation on 6 rows held out of the training data" in card
