"""``frostline schedule``, and ``frostline train --schedule``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from frostline.plan.schedule_file import read_schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

PHASES = """
[[phase]]
train = "head"
until = "1 epoch"

[[phase]]
train = "layers[1], pooler, head"
until = "2 steps"
lr = { "head" = 2e-3, "layers[1]" = "0.1x" }
layer_decay = 0.5
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.toml"
    file.write_text(PHASES, encoding="utf-8")
    return file


def test_a_preset_is_printed_to_edit(frostline: Callable[..., Done], bert: Path, tmp_path: Path) -> None:
    done = frostline("schedule", bert, "--preset", "gradual-unfreezing")
    assert (done.status, done.err) == (0, "")
    first, second, *_ = done.out.splitlines()
    assert first == (
        "# gradual-unfreezing: the head, then one layer more at a time (Howard and Ruder 2018, arXiv:1801.06146)."
    )
    assert second == "# Train with it: frostline train --schedule FILE"
    (tmp_path / "plan.toml").write_text(done.out, encoding="utf-8")
    trains = [phase.train for phase in read_schedule(tmp_path / "plan.toml").phases]
    assert trains == ["head", "layers[1], pooler, head", "layers[:], pooler, head", "all"]
    found = json.loads(frostline("schedule", bert, "--preset", "gradual-unfreezing", "--json").out)
    assert [phase["train"] for phase in found["phase"]] == trains
    assert found["source"] == "Howard and Ruder 2018, arXiv:1801.06146"


def test_an_unknown_preset(refused: Callable[..., str], bert: Path) -> None:
    assert "Did you mean 'head-only'?" in refused("schedule", bert, "--preset", "head-olny")


def test_a_run_by_phases(frostline: Callable[..., Done], bert: Path, table: Path, tmp_path: Path, plan: Path) -> None:
    words = ["--model", bert, "--data", table, "--eval", table, "--batch-size", 8, "--out", tmp_path / "out"]
    done = frostline("train", *words, "--schedule", plan)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    place = lines.index(f"Schedule ({plan}):")
    assert lines[place + 1] == "1. train head; for 1 epoch; learning rate 0.01"
    assert lines[place + 2] == (
        "2. train layers[1], pooler, head; for 2 steps; learning rate head: 0.002, layers[1]: 0.1x; layer decay 0.5"
    )
    (proof,) = [line for line in lines if line.startswith("Proof: ")]
    assert "tensors frozen throughout bit-identical; " in proof
    assert "frozen tensors bit-identical by phase: 1: " in proof
    folder = tmp_path / "out"
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (found["steps"], found["learning_rate"]) == (5, 0.01)
    assert found["schedule"] == read_schedule(folder / "schedule.toml").to_dict()
    assert [phase["to_step"] for phase in json.loads((folder / "proof.json").read_text("utf-8"))["phases"]] == [3, 5]
    assert "1. `train head; for 1 epoch; learning rate 0.01`" in (folder / "README.md").read_text(encoding="utf-8")
    assert frostline("verify", folder).status == 0
    found["schedule"]["phase"][1]["train"] = "all"
    (folder / "metrics.json").write_text(json.dumps(found), encoding="utf-8")
    said = frostline("verify", folder)
    assert said.status == 1
    assert "the phases in proof.json are not those of the schedule in metrics.json" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze", "backbone"], " and --freeze 'backbone' both say what trains"),
        (["--lora", "layers"], "--lora 'layers' and --schedule"),
        (["--epochs", 1], "phase 2 would begin after 3 steps, and the run has 3"),
    ],
)
def test_what_does_not_go_with_it(
    train: Callable[..., Done], table: Path, tmp_path: Path, plan: Path, words: list[Any], message: str
) -> None:
    done = train(*words, "--schedule", plan)
    assert done.status == 2
    assert message in done.err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["plan.toml", "rows.csv"]


def test_a_phase_that_does_not_fit_the_model(train: Callable[..., Done], table: Path, plan: Path) -> None:
    plan.write_text(PHASES.replace("layers[1], pooler", "layer[1], pooler"), encoding="utf-8")
    done = train("--schedule", plan)
    assert done.status == 2
    assert f"'{plan}', phase 2: " in done.err
    assert "»layer[1]«" in done.err
