"""Whole sweeps on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoModelForSequenceClassification, TrainerCallback
from transformers.integrations import integration_utils

import frostline as fl
from frostline.base.sealing import Seal
from frostline.errors import OutputError, SettingsError
from frostline.runs.sweep.trial import Trial, TrialResult
from frostline.runs.sweep.worker import Worker
from tests.training import tiny

if TYPE_CHECKING:
    from frostline.runs.sweep.result import SweepResult

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "seeds": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    tiny.write_csv(folder / "rows.csv", tiny.easy_rows(40))
    tiny.write_csv(folder / "dev.csv", tiny.easy_rows(20))
    wrong = {"good": "bad", "bad": "good"}
    tiny.write_csv(folder / "wrong.csv", [row | {"label": wrong[row["label"]]} for row in tiny.easy_rows(20)])
    return folder


def sweep(model: Path, place: Path, out: Path | None, dev: str = "dev.csv", **changes: Any) -> SweepResult:
    return fl.sweep(str(model), str(place / "rows.csv"), str(place / dev), out=out, **OPTIONS | changes)


def trials(folder: Path) -> dict[Trial, TrialResult]:
    values = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    return {result.trial: result for result in map(TrialResult.from_dict, values)}


@pytest.fixture(scope="module")
def swept(quick_bert: Path, place: Path) -> SweepResult:
    return sweep(quick_bert, place, place / "out", pick="best")


def test_a_row_per_depth_and_a_value_per_seed(swept: SweepResult) -> None:
    assert [row.freeze for row in swept.rows] == ["", "embeddings", "embeddings, layers[0]", "backbone"]
    assert all(len(row.accuracy.values) == 2 for row in swept.rows)
    assert [row.trainable for row in swept.rows] == sorted((row.trainable for row in swept.rows), reverse=True)
    assert swept.rows[0].trainable == 1
    assert 0 < swept.shared_seconds < swept.seconds


def test_the_folder_is_complete_and_sealed(swept: SweepResult) -> None:
    folder = swept.folder
    assert folder is not None
    assert {"sweep.json", "trials.json", "sweep.txt", "sweep.png", "sweep.svg", "model"} <= {
        file.name for file in folder.iterdir()
    }
    assert json.loads((folder / "sweep.json").read_text(encoding="utf-8")) == json.loads(json.dumps(swept.to_dict()))
    assert (folder / "sweep.txt").read_text(encoding="utf-8") == f"{swept}\n"
    assert not Seal.read(folder).beside(folder)
    assert not folder.with_name("out.partial").joinpath("trials").exists()


def test_the_picked_model_is_trained_and_proven(swept: SweepResult) -> None:
    assert swept.folder is not None
    AutoModelForSequenceClassification.from_pretrained(swept.folder / "model")
    assert fl.verify_run(swept.folder / "model").ok
    best = max(swept.rows, key=lambda row: (row.accuracy.mean, -row.seconds))
    settings = json.loads((swept.folder / "model" / "metrics.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["freeze"] or "", settings["learning_rate"]) == (best.freeze, best.learning_rate)
    assert any(note.startswith("Picked (best): ") for note in swept.notes)


def test_rates_are_chosen_without_the_evaluation_data(swept: SweepResult, quick_bert: Path, place: Path) -> None:
    assert swept.folder is not None
    other = sweep(quick_bert, place, place / "wrong", "wrong.csv")
    tuned = [{trial: result.metrics for trial, result in trials(folder).items() if trial.part == "tuning"}
             for folder in (swept.folder, place / "wrong")]  # fmt: skip
    assert len(tuned[0]) == 12  # three rates at four depths
    assert tuned[0] == tuned[1]
    assert [row.learning_rate for row in other.rows] == [row.learning_rate for row in swept.rows]
    for row, wrong in zip(swept.rows, other.rows, strict=True):
        assert wrong.accuracy.values == pytest.approx([1 - value for value in row.accuracy.values])


def test_an_interrupted_sweep_goes_on_to_the_same_table(
    swept: SweepResult, quick_bert: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert swept.folder is not None
    whole, done = Worker.run, list[Trial]()
    most = 15

    def run(self: Worker, trial: Trial, report_to: Any = ()) -> TrialResult:
        if len(done) == most:
            raise KeyboardInterrupt
        done.append(trial)
        return whole(self, trial, report_to)

    out = place / "interrupted"
    monkeypatch.setattr(Worker, "run", run)
    with pytest.raises(KeyboardInterrupt):
        sweep(quick_bert, place, out)
    assert not out.exists()
    with pytest.raises(OutputError, match="--resume"):
        sweep(quick_bert, place, out)
    with pytest.raises(OutputError, match="--seeds 2"):
        sweep(quick_bert, place, out, seeds=3, resume=True)
    most = 1000
    resumed = sweep(quick_bert, place, out, resume=True)
    assert len(done) == len(set(done)) == 20  # none is run twice
    assert [(row.freeze, row.accuracy, row.macro_f1, row.learning_rate) for row in resumed.rows] == [
        (row.freeze, row.accuracy, row.macro_f1, row.learning_rate) for row in swept.rows
    ]


def test_runs_are_those_of_the_trainer_alone(swept: SweepResult, quick_bert: Path, place: Path) -> None:
    """The shared store and checks change no figure."""
    assert swept.folder is not None
    apart = sweep(quick_bert, place, None, depths=[2], rates=[swept.rows[-1].learning_rate], store="off")
    assert apart.folder is None
    assert apart.shared_seconds < swept.shared_seconds
    assert apart.rows[-1].accuracy == swept.rows[-1].accuracy


def test_a_short_budget_leaves_the_first_seed(quick_bert: Path, place: Path) -> None:
    found = sweep(quick_bert, place, None, depths=[2], budget="0.1s")
    assert [len(row.accuracy.values) for row in found.rows] == [1, 1]
    assert any("no time to choose learning rates" in note for note in found.notes)
    assert any("The budget ended after 1 of 2 seeds" in note for note in found.notes)
    assert found.verdict.startswith("One seed shows no noise")


def test_a_regression_is_refused(quick_bert: Path, place: Path, tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "values.csv", [{"text": f"film {i}", "label": i / 7} for i in range(20)])
    with pytest.raises(SettingsError, match="these labels are values"):
        fl.sweep(str(quick_bert), str(tmp_path / "values.csv"), str(tmp_path / "values.csv"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_a_model_needs_a_folder(quick_bert: Path, place: Path) -> None:
    with pytest.raises(SettingsError, match="no place for a model"):
        sweep(quick_bert, place, None, pick="best")


def test_trackers_get_a_run_per_row_and_seed(
    quick_bert: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(args.run_name)
            Path(args.output_dir).mkdir(parents=True, exist_ok=True)
            (Path(args.output_dir) / "log").write_text(args.run_name, encoding="utf-8")

    with pytest.raises(SettingsError, match=r"--report-to names 'nosuch', which is none of the trackers"):
        sweep(quick_bert, place, None, report_to=["nosuch"])
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["tensorboard"])
    sweep(quick_bert, place, tmp_path / "out", depths=[2], rates=[1e-3, 3e-3], report_to=["tensorboard"])
    names = [f"{freeze}, seed {seed}" for seed in (42, 43) for freeze in ("nothing frozen", "backbone")]
    assert seen == names
    assert len(list((tmp_path / "out" / "tracked").glob("*/log"))) == 4


def test_schedules_stand_beside_depths(quick_bert: Path, place: Path) -> None:
    found = sweep(
        quick_bert,
        place,
        place / "scheduled",
        depths=[],
        presets=["gradual-unfreezing", "head-only"],
        seeds=1,
        pick="fastest-within 100pt",
    )
    assert [(row.freeze, row.preset) for row in found.rows] == [("", ""), ("", "gradual-unfreezing"), ("", "head-only")]
    assert [row.learning_rate is None for row in found.rows] == [False, True, True]
    full, gradual, head = found.rows
    assert (full.trainable, gradual.trainable) == (1, 1)
    assert head.trainable < 0.5
    assert gradual.difference is not None
    assert {entry["preset"] or entry["freeze"] for entry in found.to_dict()["rows"]} >= set(found.to_dict()["pareto"])
    assert found.folder is not None
    settings = json.loads((found.folder / "model" / "metrics.json").read_text(encoding="utf-8"))["settings"]
    assert settings["schedule"] == (min(found.rows, key=lambda row: row.seconds).preset or None)


def test_an_unknown_schedule_is_refused(quick_bert: Path, place: Path) -> None:
    with pytest.raises(SettingsError, match="--presets names 'gradual'"):
        sweep(quick_bert, place, None, presets=["gradual"])
