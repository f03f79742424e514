"""Pages and pictures as a user gets them."""

from __future__ import annotations

import html
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from frostline.base.sealing import Seal
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def marks_of(page: str) -> dict[str, str]:
    (data,) = re.findall(r'<script type="application/json" id="tower-data">(.*?)</script>', page)
    values: dict[str, Any] = json.loads(data)
    names = [unit["name"] for unit in values["tower"]["units"]]
    return dict(zip(names, (mark["text"] for mark in values["marks"]), strict=True))


def test_a_run(frostline: Callable[..., Done], trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "page.html"
    before = Seal.of(trained).digest
    done = frostline("report", trained, "--out", out)
    assert (done.status, done.out, done.err) == (0, f"Page: {out}\n", "")
    page = out.read_text(encoding="utf-8")
    marks = marks_of(page)
    assert marks["embeddings"] == "unchanged bit for bit"
    assert re.fullmatch(r"moved · [\d.e-]+", marks["layer 1"])
    assert marks["head"] == "new, trained"
    assert page.count('class="chart"') == 2
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    evaluations = [entry for entry in metrics["history"] if "eval_loss" in entry]
    counts = next(entry for entry in evaluations if entry["epoch"] == metrics["best_epoch"])
    shown = re.search(r'<table class="confusion">.*?</table>', page, re.DOTALL)
    assert shown is not None
    assert re.findall(r'<td class="number[^>]*>(\d+)</td>', shown[0]) == [
        str(count) for row in counts["eval_confusion"] for count in row
    ]
    assert sum(map(sum, counts["eval_confusion"])) == metrics["eval_rows"]
    assert Seal.of(trained).digest == before


def test_its_command_does_it_again(frostline: Callable[..., Done], trained: Path, tmp_path: Path) -> None:
    frostline("report", trained, "--out", tmp_path / "page.html")
    (command,) = re.findall(r"<pre>(frostline train .*?)</pre>", (tmp_path / "page.html").read_text(encoding="utf-8"))
    settings = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["settings"]
    words = shlex.split(command.replace("&#34;", '"').replace("&#39;", "'"))
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given == {
        "--model": settings["model"],
        "--data": settings["data"],
        "--eval": settings["eval_data"],
        "--freeze": "embeddings",
        "--epochs": str(settings["epochs"]),
        "--lr": "0.003",
        "--batch-size": "8",
    }


@pytest.mark.parametrize("phases", [3, [3], [{"from_step": "a", "to_step": 3}], [{"from_step": 0, "to_step": 10**400}]])
def test_phases_of_somebody_else(frostline: Callable[..., Done], trained: Path, tmp_path: Path, phases: Any) -> None:
    run = tiny.copy_of(trained, tmp_path / "run")
    proof = json.loads((run / "proof.json").read_text(encoding="utf-8"))
    (run / "proof.json").write_text(json.dumps(proof | {"phases": phases}), encoding="utf-8")
    assert frostline("report", run, "--out", tmp_path / "page.html").status == 0
    assert "<h2>Phases" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_run_whose_base_has_gone(frostline: Callable[..., Done], trained: Path, tmp_path: Path) -> None:
    run = tiny.copy_of(trained, tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["settings"]["model"] = str(tmp_path / "gone")
    (run / "metrics.json").write_text(json.dumps(metrics | {"history": []}), encoding="utf-8")
    assert frostline("report", run, "--out", tmp_path / "page.html").status == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "How far units moved is not shown" in page
    assert marks_of(page)["layer 1"] == "moved"


@pytest.mark.parametrize("damage", ["{", "[]", '{"units": 3}', '{"units": [], "tensors": {"a": 1}}'])
def test_a_damaged_run(refused: Callable[..., str], trained: Path, tmp_path: Path, damage: str) -> None:
    run = tiny.copy_of(trained, tmp_path / "run")
    (run / "proof.json").write_text(damage, encoding="utf-8")
    assert "proof.json" in refused("report", run, "--out", tmp_path / "page.html")


@pytest.mark.parametrize(
    "changes",
    [
        {"history": [{"epoch": 10**400, "loss": 1}, {"epoch": 1, "loss": "x"}, 3]},
        {"best_epoch": 1, "history": [{"epoch": 1, "eval_confusion": [[10**400, -(10**400)], [0, 0]]}]},
        {
            "eval": {"loss": 10**400},
            "engine": {"choice": {"alternatives": [3]}, "guard": 3},
            "labels": 3,
            "settings": [],
        },
        {"best_epoch": 1, "history": [{"epoch": 1, "eval_most_wrong": [3, [1], [0, 5, 0, 1], [0, 0, 1, 10**400]]}]},
        {"engine": {"choice": {"alternatives": [{}]}}, "history": {}, "warning": "<script>alert(1)</script>"},
    ],
)
def test_metrics_of_somebody_else(
    frostline: Callable[..., Done], trained: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = tiny.copy_of(trained, tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (run / "metrics.json").write_text(json.dumps(metrics | changes), encoding="utf-8")
    done = frostline("report", run, "--out", tmp_path / "page.html")
    assert (done.status, done.err) == (0, "")
    assert "<script>alert" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_sweep_of_somebody_else(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("[3]", encoding="utf-8")
    assert "It is not as the sweep wrote it." in refused("report", tmp_path, "--out", tmp_path / "page.html")


def test_texts_stand_in_the_page_alone(train: Callable[..., Done], table: Path, tmp_path: Path) -> None:
    page, out = tmp_path / "page.html", tmp_path / "out"
    assert train("--eval", table, "--html", page).status == 0
    text = page.read_text(encoding="utf-8")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    kept = next(entry for entry in metrics["history"] if "eval_most_wrong" in entry)
    rows = re.search(r"<h2>What it got most wrong</h2>.*?</table>", text, re.DOTALL)
    assert rows is not None
    assert len(re.findall("<tr><td", rows[0])) == len(kept["eval_most_wrong"]) > 0
    place, true, given, loss = kept["eval_most_wrong"][0]
    said = table.read_text(encoding="utf-8")
    first = re.findall(r"<td[^>]*>(.*?)</td>", rows[0])[:4]
    assert first[:3] == [f"{loss:.2f}", metrics["labels"][true], metrics["labels"][given]]
    assert html.unescape(first[3]) in said.splitlines()[place + 1]
    for file in out.iterdir():
        assert first[3].encode() not in file.read_bytes()
    assert train("--eval", table, "--html", page, "--no-texts", "--overwrite").status == 0
    text = page.read_text(encoding="utf-8")
    assert "What it got most wrong" not in text
    assert "a run&#39;s folder holds none" in text


def test_phases_are_bands(train: Callable[..., Done], table: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, plan = tmp_path / "page.html", tmp_path / "plan.toml"
    plan.write_text('[[phase]]\ntrain = "head"\nuntil = "50%"\n[[phase]]\ntrain = "all"\n', encoding="utf-8")
    assert train("--eval", table, "--schedule", plan, "--epochs", 2, "--html", page).status == 0
    text = page.read_text(encoding="utf-8")
    assert text.count(">1: head</text>") == text.count(">2: all</text>") == 2
    shown = re.search(r"<h2>Phases</h2>.*?</table>", text, re.DOTALL)
    assert shown is not None
    assert re.findall(r"<td[^>]*>(.*?)</td>", shown[0]) == ["1", "head", "0 to 1", "2", "all", "1 to 2"]


def test_an_estimate(frostline: Callable[..., Done], bert: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("estimate", bert, "--freeze", "embeddings", "--rows", 100, "--mean-tokens", 9, "--html", page)
    done = frostline(*words, "--device", "t4")
    assert (done.status, done.out.splitlines()[-1]) == (0, f"Page: {page}")
    text = page.read_text(encoding="utf-8")
    for line in done.out.splitlines()[:3]:
        assert line in html.unescape(text)
    assert text.count('class="parts"') == 5
    assert f'"checkpoint":{json.dumps(str(bert))}' in text


def test_what_is_no_run(refused: Callable[..., str], bert: Path, tmp_path: Path) -> None:
    assert "holds no metrics.json" in refused("report", bert, "--out", tmp_path / "page.html")


def test_an_inspection(frostline: Callable[..., Done], bert: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "tower.svg"
    done = frostline("inspect", bert, "--freeze", "embeddings", "--html", page, "--svg", picture)
    assert done.out.splitlines()[-2:] == [f"Page: {page}", f"Picture: {picture}"]
    assert "Partly frozen" in page.read_text(encoding="utf-8")
    assert picture.read_text(encoding="utf-8").startswith("<svg ")
    as_json = frostline("inspect", bert, "--html", page, "--json")
    assert json.loads(as_json.out)["trainable_parameters"]


def test_a_diff(frostline: Callable[..., Done], bert: Path, trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = frostline("diff", bert, trained, "--html", page, "--expect-frozen", "all")
    assert done.status == 1
    assert f"Page: {page}" in done.out
    assert 'class="sortable"' in page.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written(refused: Callable[..., str], bert: Path, tmp_path: Path) -> None:
    assert "is a folder" in refused("inspect", bert, "--html", tmp_path)
