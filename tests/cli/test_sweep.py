from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def test_what_is_printed(
    frostline: Callable[..., Done], bert: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sweep", "--model", bert, "--data", table, "--eval", table, "--lr", "1e-3", "--seeds", 2, "--epochs", 1)
    options = ("--depths", "0,2", "--device", "cpu")
    monkeypatch.setenv("COLUMNS", "120")
    done = frostline(*words, *options, "--out", tmp_path / "out")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split()[0] == "frozen"
    assert [line.split("  ")[0] for line in lines[2:5]] == ["nothing", "embeddings", "all but the head"]
    assert all(len(line) <= 120 for line in lines)
    assert f"Table, picture and all runs are in {tmp_path / 'out'}." in " ".join(lines)
    page, again = tmp_path / "page.html", tmp_path / "again.html"
    told = frostline(*words, *options, "--out", tmp_path / "out", "--overwrite", "--json", "--html", page)
    values = json.loads(told.out)
    assert [row["freeze"] for row in values["rows"]] == ["", "embeddings", "backbone"]
    assert {"rows", "pareto", "verdict"} <= values.keys()
    assert frostline("report", tmp_path / "out", "--out", again).out == f"Page: {again}\n"
    assert page.read_text(encoding="utf-8") == again.read_text(encoding="utf-8")
    assert f"--data {table} --eval {table} --freeze embeddings" in page.read_text(encoding="utf-8")
    refused = frostline(*words, *options, "--out", tmp_path / "out")
    assert refused.status == 2
    assert "--overwrite" in refused.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--depths", "two"), "--depths is 'two'"),
        (("--depths", "9"), "--depths names 9"),
        (("--lr", "fast"), "--lr is 'fast'"),
        (("--budget", "soon"), "--budget is 'soon'"),
        (("--pick", "cheapest"), "--pick is 'cheapest'"),
        (("--report-to", "nosuch"), "--report-to names 'nosuch'"),
    ],
)
def test_what_is_refused(
    refused: Callable[..., str], bert: Path, table: Path, tmp_path: Path, given: tuple[str, str], said: str
) -> None:
    words = ("sweep", "--model", bert, "--data", table, "--eval", table, "--out", tmp_path / "out")
    assert said in refused(*words, *given)
