"""The page of a sweep, and a sweep that is read back."""

from __future__ import annotations

import html
import json
import re
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from frostline.errors import ModelError
from frostline.runs.sweep.saved_sweep import read_sweep
from frostline.runs.train_settings import TrainSettings
from tests.report.test_page import EVIL
from tests.runs.sweep.test_result import RESULT, ROWS

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = TrainSettings(model="somewhere", data="a b.csv", eval_data="10%", epochs=3, batch_size=8).to_dict()
GIVEN = replace(RESULT, settings=SETTINGS)


def choices(page: str) -> list[dict[str, str]]:
    """What there is to copy, row by row."""
    return [json.loads(html.unescape(text)) for text in re.findall(r'data-texts="([^"]*)"', page)]


def test_each_row_has_its_command() -> None:
    found = choices(GIVEN.to_html())
    assert [one["selector"] for one in found] == ["", "low", "high", "middle", "head"]
    words = shlex.split(found[1]["command"])
    assert words[:2] == ["frostline", "train"]
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--model": "somewhere",
        "--data": "a b.csv",
        "--eval": "10%",
        "--freeze": "low",
        "--epochs": "3",
        "--lr": "0.0001",
        "--batch-size": "8",
    }
    assert "--freeze" not in found[0]["command"]


def test_what_the_verdict_praises_is_chosen() -> None:
    assert RESULT.verdict.startswith("Freezing low costs nothing")
    (chosen,) = re.findall(r"<input [^>]* checked> <span>\d. (\w+)<", GIVEN.to_html())
    assert chosen == "low"


def test_a_schedule_is_trained_by_its_name() -> None:
    rows = (ROWS[0], replace(ROWS[1], freeze="", preset="lisa", learning_rate=None))
    found = choices(replace(GIVEN, rows=rows).to_html())[1]
    assert found["selector"] == ""
    assert "--schedule lisa" in found["command"]
    assert "--lr" not in found["command"]


def test_without_matplotlib_the_table_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = GIVEN.to_html()
    assert "pip install &#39;frostline[plot]&#39;" in page
    assert "<svg" not in page
    assert len(choices(page)) == len(ROWS)
    assert "frostline[plot]" in GIVEN._repr_html_()


def test_hostile_names_stay_text() -> None:
    pytest.importorskip("matplotlib")
    rows = (ROWS[0], replace(ROWS[1], name=EVIL, freeze=EVIL))
    for text in (replace(GIVEN, rows=rows, model=EVIL, verdict=EVIL, notes=(EVIL,)).to_html(),):
        assert "<script>alert" not in text
        assert "\u202e" not in text
    assert "<script" not in replace(GIVEN, rows=rows, verdict=EVIL)._repr_html_()


def test_read_back_it_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(GIVEN.to_dict()), encoding="utf-8")
    found = read_sweep(tmp_path)
    assert found.to_dict() == json.loads(json.dumps(GIVEN.to_dict()))
    assert found.to_html() == GIVEN.to_html()


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": []},
        {"rows": [3]},
        {"rows": [{**ROWS[0].to_dict(), "seconds": 0}]},
        {"rows": [{**ROWS[0].to_dict(), "seconds": "fast"}]},
        {"rows": [{**ROWS[0].to_dict(), "accuracy": {"values": []}}]},
        {"rows": [{**ROWS[0].to_dict(), "accuracy": {"values": [10**400]}}]},
        {"eval_rows": 0},
        {"epochs": None},
        {"notes": 3},
    ],
)
def test_a_damaged_one(tmp_path: Path, damage: dict[str, Any]) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(GIVEN.to_dict() | damage), encoding="utf-8")
    with pytest.raises(ModelError, match=r"sweep\.json' cannot be read"):
        read_sweep(tmp_path)
