"""A run that is interrupted and resumed ends as one that is not: bit by bit, with dropout on."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from frostline.base.sealing import Seal
from frostline.errors import DriftError, OutputError
from frostline.runs.interrupt import SaveOnInterrupt
from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings
from frostline.training.checkpoints import newest_sound
from tests.thinning import slow
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from frostline.runs.train_result import TrainResult

STEPS = 3  # per epoch: 24 rows in batches of 8


class AtStep(TrainerCallback):
    """Does something when a step ends; by default what Ctrl-C does."""

    def __init__(self, step: int, error: type[Exception] | None = None) -> None:
        self._step = step
        self._error = error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            if self._error is not None:
                raise self._error
            signal.raise_signal(signal.SIGINT)


class AtEvaluation(TrainerCallback):
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signal.raise_signal(signal.SIGTERM)


def settings(folder: Path, model: Path, **changes: Any) -> TrainSettings:
    file = folder / "rows.csv"
    if not file.exists():
        tiny.write_csv(file, tiny.rows(8 * STEPS))
    values: dict[str, Any] = {"epochs": 2.0, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"}
    # What is measured decides on the store otherwise, and may decide differently in two runs.
    values |= {"eval_data": str(file), "freeze": "embeddings, layers[0]", "store": "memory"}
    return TrainSettings(model=str(model), data=str(file), **values | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def whole(place: Path, quick_bert: Path) -> TrainResult:
    """The run without an interruption."""
    return run_training(settings(place, quick_bert), place / "whole")


def assert_same(resumed: TrainResult, whole: TrainResult) -> None:
    assert tiny.same_weights(resumed.folder, whole.folder)
    assert resumed.metrics == whole.metrics
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.steps == whole.steps
    assert resumed.train_loss == pytest.approx(whole.train_loss, abs=1e-6)
    assert evaluations(resumed) == evaluations(whole)
    assert resumed.proof.tensors == whole.proof.tensors
    assert not resumed.folder.with_name(f"{resumed.folder.name}.partial").exists()


def evaluations(result: TrainResult) -> list[tuple[int, float]]:
    history = json.loads((result.folder / "metrics.json").read_text(encoding="utf-8"))["history"]
    return [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]


def test_the_run_is_no_trivial_one(whole: TrainResult) -> None:
    assert whole.steps == 2 * STEPS
    assert whole.proof.ok
    assert sum(tensor.moved for tensor in whole.proof.tensors) > 10
    assert len(evaluations(whole)) == 2


@pytest.mark.parametrize("step", [1, 2 * STEPS - 1, *slow(2, STEPS, STEPS + 1, 2 * STEPS)])
def test_ctrl_c_at_any_step(tmp_path: Path, place: Path, quick_bert: Path, whole: TrainResult, step: int) -> None:
    wanted = settings(place, quick_bert)
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(step)])
    assert not (tmp_path / "out").exists()
    checkpoint = tmp_path / "out.partial" / "checkpoints" / f"checkpoint-{step}"
    assert {"fingerprint.json", "plan.json", "optimizer.pt", "rng_state.pth"} <= {
        entry.name for entry in checkpoint.iterdir()
    }
    resumed = run_training(wanted, tmp_path / "out", resume=True)
    assert resumed.start.resumed == checkpoint
    assert_same(resumed, whole)


@pytest.mark.parametrize("store", ["memory", *slow("disk", "off")])
def test_wherever_activations_are_kept(tmp_path: Path, place: Path, quick_bert: Path, store: str) -> None:
    wanted = [
        settings(place, quick_bert, store=store, store_dir=str(tmp_path / f"store-{run}")) for run in ("whole", "out")
    ]
    whole = run_training(wanted[0], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted[1], tmp_path / "out", callbacks=[AtStep(4)])
    resumed = run_training(wanted[1], tmp_path / "out", resume=True)
    assert_same(resumed, whole)
    assert resumed.engine is not None
    assert whole.engine is not None
    assert resumed.engine.rows == whole.engine.rows
    assert (whole.engine.rows > 0) == (store != "off")
    assert (resumed.engine.computed > 0) == (store == "memory")  # what is on disk was there


def test_the_choice_of_an_interrupted_run_holds(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    wanted = settings(place, quick_bert, store="auto")
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(4)])
    file = tmp_path / "out.partial" / "checkpoints" / "checkpoint-4" / "engine.json"
    kept = json.loads(file.read_text(encoding="utf-8"))["store"]
    resumed = run_training(wanted, tmp_path / "out", resume=True)
    assert resumed.engine is not None
    assert resumed.engine.choice is not None
    assert (resumed.engine.choice.where, resumed.engine.choice.why) == (kept, "as before the interruption")


@pytest.mark.slow
def test_twice_interrupted(tmp_path: Path, place: Path, quick_bert: Path, whole: TrainResult) -> None:
    wanted = settings(place, quick_bert)
    for step, resume in ((2, False), (5, True)):
        with pytest.raises(KeyboardInterrupt):
            run_training(wanted, tmp_path / "out", resume=resume, callbacks=[AtStep(step)])
    assert_same(run_training(wanted, tmp_path / "out", resume=True), whole)


def test_asked_to_stop_while_the_store_is_filled(
    tmp_path: Path, place: Path, quick_bert: Path, heard: pytest.LogCaptureFixture
) -> None:
    class AtFill(TrainerCallback):
        def on_fill(self, done: int, total: int) -> None:
            assert 0 < done <= total
            signal.raise_signal(signal.SIGINT)

    steps = AtStep(1, AssertionError)
    wanted = settings(place, quick_bert, store="disk", store_dir=str(tmp_path / "store"))
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtFill(), steps])
    assert {entry.name for entry in tmp_path.iterdir()} == {"store"}
    assert "no new checkpoint; what is on disk is kept" in heard.messages[-1]
    again = run_training(wanted, tmp_path / "out").engine
    assert again is not None
    assert again.rows > 0
    assert again.computed == 0


def test_asked_to_stop_while_evaluating(tmp_path: Path, place: Path, quick_bert: Path, whole: TrainResult) -> None:
    wanted = settings(place, quick_bert)
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtEvaluation()])
    assert_same(run_training(wanted, tmp_path / "out", resume=True), whole)


def test_broken_off_without_warning(tmp_path: Path, place: Path, quick_bert: Path, whole: TrainResult) -> None:
    """What is lost is what came after the last checkpoint; a checkpoint that was half written is not looked at."""
    wanted = settings(place, quick_bert)
    with pytest.raises(MemoryError):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(STEPS + 2, MemoryError)])
    checkpoints = tmp_path / "out.partial" / "checkpoints"
    half = shutil.copytree(checkpoints / f"checkpoint-{STEPS}", checkpoints / f"checkpoint-{STEPS + 1}")
    (half / "model.safetensors").write_bytes(b"half")
    state = (half / "trainer_state.json").read_text(encoding="utf-8")
    (half / "trainer_state.json").write_text(state[: len(state) // 2], encoding="utf-8")
    resumed = run_training(wanted, tmp_path / "out", resume=True)
    assert resumed.start.resumed == checkpoints / f"checkpoint-{STEPS}"
    assert_same(resumed, whole)


CHECKPOINT_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "trainer_state.json")


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "one bit":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(pickle.dumps(OSError("hostile")))


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory, place: Path, quick_bert: Path) -> Path:
    """A folder with ``out.partial``, in which two checkpoints are; it is not to be changed."""
    folder = tmp_path_factory.mktemp("broken-off")
    with pytest.raises(KeyboardInterrupt):
        run_training(settings(place, quick_bert), folder / "out", callbacks=[AtStep(STEPS + 1)])
    names = sorted(entry.name for entry in (folder / "out.partial" / "checkpoints").iterdir())
    assert names == [f"checkpoint-{STEPS}", f"checkpoint-{STEPS + 1}"]
    return folder


@pytest.mark.parametrize("how", ["missing", "one bit", *slow("truncated", "pickled")])
@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, "fingerprint.json", "files.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    tmp_path: Path,
    place: Path,
    quick_bert: Path,
    whole: TrainResult,
    broken_off: Path,
    heard: pytest.LogCaptureFixture,
    name: str,
    how: str,
) -> None:
    shutil.copytree(broken_off, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / "out.partial" / "checkpoints"
    damage(checkpoints / f"checkpoint-{STEPS + 1}" / name, how)
    sound = newest_sound(checkpoints)
    assert sound == checkpoints / f"checkpoint-{STEPS}"
    assert f"Not sound: checkpoint-{STEPS + 1}: {name} " in heard.messages[-1]
    assert heard.messages[-1].endswith(f"Going on from checkpoint-{STEPS}.")
    if (name, how) == ("optimizer.pt", "one bit"):
        assert_same(run_training(settings(place, quick_bert), tmp_path / "out", resume=True), whole)


@pytest.mark.parametrize("how", ["link", "folder"])
def test_a_damaged_checkpoint_is_moved_aside_and_never_written_to(
    tmp_path: Path, place: Path, quick_bert: Path, broken_off: Path, how: str
) -> None:
    shutil.copytree(broken_off, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / "out.partial" / "checkpoints"
    file = checkpoints / f"checkpoint-{STEPS + 1}" / "optimizer.pt"
    precious = tmp_path / "precious"
    precious.write_text("precious")
    file.unlink()
    if how == "link":
        file.symlink_to(precious)
    else:
        file.mkdir()
    newest_sound(checkpoints)
    names = sorted(entry.name for entry in checkpoints.iterdir())
    assert names == [f"checkpoint-{STEPS}", f"damaged-1-checkpoint-{STEPS + 1}"]
    run_training(settings(place, quick_bert), tmp_path / "out", resume=True)
    assert precious.read_text() == "precious"


def test_no_sound_checkpoint_is_an_error_and_nothing_is_lost(
    tmp_path: Path, place: Path, quick_bert: Path, broken_off: Path
) -> None:
    shutil.copytree(broken_off, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / "out.partial" / "checkpoints"
    damage(checkpoints / f"checkpoint-{STEPS}" / "rng_state.pth", "missing")
    before = {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")}
    with pytest.raises(OutputError) as caught:  # the newer one goes on to need the older, whose model is the best
        run_training(settings(place, quick_bert), tmp_path / "out", resume=True)
    assert str(caught.value) == (
        f"No checkpoint in '{checkpoints}' is sound (checkpoint-{STEPS + 1}: the best one before it, "
        f"checkpoint-{STEPS}: rng_state.pth is missing; checkpoint-{STEPS}: rng_state.pth is missing).\n"
        "Start anew by --overwrite."
    )
    assert {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")} == before


@pytest.mark.parametrize("name", [name for name in CHECKPOINT_FILES if name != "trainer_state.json"])
@pytest.mark.parametrize("how", [*slow("truncated"), "pickled"])
def test_a_checkpoint_that_somebody_sealed_anew(
    tmp_path: Path, place: Path, quick_bert: Path, broken_off: Path, name: str, how: str
) -> None:
    shutil.copytree(broken_off, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "out.partial" / "checkpoints" / f"checkpoint-{STEPS + 1}"
    damage(checkpoint / name, how)
    Seal.of(checkpoint).write(checkpoint)
    with pytest.raises(OutputError, match=rf"(?s)checkpoint-{STEPS + 1}.*Start anew by --overwrite\."):
        run_training(settings(place, quick_bert), tmp_path / "out", resume=True)
    assert checkpoint.is_dir()


def test_work_that_was_moved_while_it_waited(
    tmp_path: Path, place: Path, quick_bert: Path, whole: TrainResult, broken_off: Path
) -> None:
    """The best checkpoint is looked for beside the others, not where it was written."""
    shutil.copytree(broken_off / "out.partial", tmp_path / "other.partial")
    assert_same(run_training(settings(place, quick_bert), tmp_path / "other", resume=True), whole)


@pytest.mark.slow
def test_without_evaluation(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    wanted = settings(place, quick_bert, eval_data=None)
    whole = run_training(wanted, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(4)])
    assert_same(run_training(wanted, tmp_path / "out", resume=True), whole)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    once, again = (run_training(settings(place, quick_bert, epochs=1.0), tmp_path / name) for name in ("a", "b"))
    other = run_training(settings(place, quick_bert, epochs=1.0, seed=7), tmp_path / "c")
    assert tiny.same_weights(once.folder, again.folder)
    assert once.metrics == again.metrics
    assert not tiny.same_weights(once.folder, other.folder)


@pytest.mark.parametrize("step", [2 * STEPS, *slow(STEPS + 1, 3 * STEPS)])
def test_patience_is_not_refreshed_by_an_interruption(tmp_path: Path, place: Path, quick_bert: Path, step: int) -> None:
    # At this rate no evaluation is better than the first one.
    wanted = settings(place, quick_bert, learning_rate=1e-9, epochs=6.0, patience=2)
    whole = run_training(wanted, tmp_path / "whole")
    assert whole.steps == 3 * STEPS
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(step)])
    assert_same(run_training(wanted, tmp_path / "out", resume=True), whole)


class AtTheEnd(TrainerCallback):
    """Fails when all that is left to do is to save the model."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise RuntimeError


@pytest.mark.parametrize("stops", [AtStep(4), *slow(AtStep(5), AtTheEnd())])
def test_a_schedule_that_ends_within_an_epoch(tmp_path: Path, place: Path, quick_bert: Path, stops: Any) -> None:
    plan = tmp_path / "plan.toml"
    phases = ("train = 'head'\nuntil = '1 epoch'", "train = 'layers[1], head'\nuntil = '2 steps'")
    plan.write_text("".join(f"[[phase]]\n{phase}\n" for phase in phases), encoding="utf-8")
    wanted = settings(place, quick_bert, freeze=None, schedule=str(plan), epochs=3.0, learning_rate=None)
    whole = run_training(wanted, tmp_path / "whole")
    assert whole.steps == 5
    assert [phase.to_step for phase in whole.proof.phases] == [3, 5]
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        run_training(wanted, tmp_path / "out", callbacks=[stops])
    assert_same(run_training(wanted, tmp_path / "out", resume=True), whole)


def test_what_was_chosen_is_chosen_again(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    wanted = settings(place, quick_bert, epochs=None, learning_rate=None)
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(2)])
    noted = tmp_path / "out.partial" / "run.json"
    kept = json.loads(noted.read_text(encoding="utf-8"))
    noted.write_text(json.dumps(kept | {"chosen": "7 epochs"}), encoding="utf-8")
    with pytest.raises(OutputError, match="had other epochs or another learning rate, chosen by another version"):
        run_training(wanted, tmp_path / "out", resume=True)
    noted.write_text(json.dumps(kept), encoding="utf-8")
    result = run_training(wanted, tmp_path / "out", resume=True)
    assert result.start.length.chosen == kept["chosen"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"epochs": 3.0}, "--epochs 2.0; this one has --epochs 3.0"),
        ({"seed": 1}, "--seed 42; this one has --seed 1"),
        ({"freeze": "embeddings"}, "--freeze 'embeddings, layers"),
        ({"learning_rate": None}, "--lr 0.01; this one has no --lr"),
        ({"engine": False}, "had no --no-engine; this one has --no-engine"),
        ({"trust_remote_code": True}, "had no --trust-remote-code; this one has --trust-remote-code"),
    ],
)
def test_other_settings_are_refused_and_the_checkpoint_kept(
    tmp_path: Path, place: Path, quick_bert: Path, broken_off: Path, changes: dict[str, Any], word: str
) -> None:
    shutil.copytree(broken_off, tmp_path, dirs_exist_ok=True)
    with pytest.raises(OutputError, match=word):
        run_training(settings(place, quick_bert, **changes), tmp_path / "out", resume=True)
    assert (tmp_path / "out.partial" / "checkpoints" / f"checkpoint-{STEPS + 1}").is_dir()


def test_other_rows_are_refused(tmp_path: Path, quick_bert: Path) -> None:
    wanted = settings(tmp_path, quick_bert)
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(2)])
    changed = tiny.rows(8 * STEPS)
    changed[5]["label"] = "bad" if changed[5]["label"] == "good" else "good"
    tiny.write_csv(tmp_path / "rows.csv", changed)
    with pytest.raises(OutputError, match=r"The interrupted run had other training rows\.\nResume"):
        run_training(wanted, tmp_path / "out", resume=True)


def test_the_proof_of_a_resumed_run_starts_at_the_true_start(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    """A frozen tensor that moved before the interruption, or while it lasted, is found."""
    wanted = settings(place, quick_bert)
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(2)])
    file = tmp_path / "out.partial" / "checkpoints" / "checkpoint-2" / "model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.0.output.dense.weight"
    tensors[name] = tensors[name] + 1
    save_file(tensors, file, metadata={"format": "pt"})
    Seal.of(file.parent).write(file.parent)
    with pytest.raises(DriftError) as caught:
        run_training(wanted, tmp_path / "out", resume=True)
    assert caught.value.proof.drifted == (name,)
    assert torch.equal(tiny.weights(tmp_path / "out")[name], tensors[name])
    assert json.loads((tmp_path / "out" / "proof.json").read_text(encoding="utf-8"))["ok"] is False


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    class Twice(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(settings(place, quick_bert), tmp_path / "out", callbacks=[Twice()])
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_any_signal_that_ends_a_process(
    tmp_path: Path, place: Path, quick_bert: Path, heard: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    class Sent(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run_training(settings(place, quick_bert), tmp_path / "out", callbacks=[Sent()])
    assert newest_sound(tmp_path / "out.partial" / "checkpoints").name == "checkpoint-2"
    assert signal.getsignal(number) == before
    assert ("Ctrl-C" in heard.messages[-2]) == (number == signal.SIGINT)
    assert heard.messages[-1] == "Stopped; checkpoint-2 is kept. Go on with the same settings and --resume."


def test_saved_files_have_the_mode_that_the_mask_leaves(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    mask = os.umask(0o027)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_training(settings(place, quick_bert), tmp_path / "out", callbacks=[AtStep(2)])
        modes = {file: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.rglob("checkpoint-*/*")}
        whole = run_training(settings(place, quick_bert), tmp_path / "out", resume=True)
        modes |= {file: stat.S_IMODE(file.stat().st_mode) for file in whole.folder.iterdir()}
    finally:
        os.umask(mask)
    assert whole.folder / "model.safetensors" in modes
    assert set(modes.values()) == {0o640}


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup, or in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SaveOnInterrupt().listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
