"""The proof of a run, by ``fl.Trainer`` and by the callback in a plain Trainer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from transformers import TrainerCallback

import frostline as fl
from frostline.errors import DriftError, PlanError, SelectorError
from tests.thinning import slow
from tests.training import tiny
from tests.training.pretrained import FROZEN, LINE, arguments, options, same, trains

if TYPE_CHECKING:
    from pathlib import Path

    from tests.training.pretrained import Batch


class Meddle(TrainerCallback):
    """Changes a frozen tensor in the middle of training, as an optimizer of somebody's own might."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            with torch.no_grad():
                kwargs["model"].get_parameter(FROZEN)[0, 0] += 1e-6


def read_proof(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
    return values


def trainer_proof(trainer: fl.Trainer, folder: Path) -> dict[str, Any]:
    trainer.save_model(str(folder))
    return read_proof(folder)


def test_the_proof_is_written(tmp_path: Path, make: Any, batch: Batch) -> None:
    trainer = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    assert not trainer.proof
    trainer.save_model(str(tmp_path / "before"))
    trainer.train()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint-3", "checkpoint-6"}
    trainer.save_model(str(tmp_path / "saved"))
    trainer.save_model()
    assert not list(tmp_path.glob("*/checkpoint-*/proof.json"))
    assert not (tmp_path / "before" / "proof.json").exists()
    written = read_proof(tmp_path / "saved")
    assert written == read_proof(tmp_path / "run")
    assert fl.verify_run(tmp_path / "saved", no_base=True).ok
    assert trainer.proof is not None
    assert written == json.loads(json.dumps(trainer.proof.to_dict()))
    assert written["ok"] is True
    assert written["tensors"][FROZEN]["before"] == written["tensors"][FROZEN]["after"]
    assert written["tensors"]["classifier.weight"]["before"] != written["tensors"]["classifier.weight"]["after"]
    assert written["seconds"] > 0
    assert 0 < written["share"] < 1


def test_a_frozen_tensor_that_moves_is_an_error_after_the_model_is_saved(
    tmp_path: Path, make: Any, batch: Batch
) -> None:
    model = make()
    trainer = fl.Trainer(model, arguments(tmp_path), train_dataset=batch, freeze=LINE, callbacks=[Meddle()])
    with pytest.raises(DriftError, match=rf"Drift: 1 of \d+ frozen tensors moved: {FROZEN}") as caught:
        trainer.train()
    assert caught.value.proof.drifted == (FROZEN,)
    assert caught.value.exit_status == 1
    assert read_proof(tmp_path / "run")["ok"] is False  # beside the weights
    saved = tiny.weights(tmp_path / "run")
    assert same(saved, {name: tensor for name, tensor in model.state_dict().items() if name in saved})


def test_a_checkpoint_of_a_second_run_is_not_given_the_proof_of_the_first(
    tmp_path: Path, make: Any, batch: Batch
) -> None:
    trainer = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    trainer.train()
    trainer.train()
    assert not list((tmp_path / "run").rglob("proof.json"))


def test_what_a_guard_counts_is_in_the_proof(tmp_path: Path, make: Any, batch: Batch) -> None:
    trainer = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    trainer._freeze_callback.guard = lambda: {"checks": trainer.state.global_step}
    trainer.train()
    trainer.save_model()
    assert read_proof(tmp_path / "run")["guard"] == {"checks": 6}
    assert fl.verify_run(tmp_path / "run", no_base=True).ok
    trainer._freeze_callback.guard = lambda: None
    trainer.train()
    trainer.save_model()
    assert "guard" not in read_proof(tmp_path / "run")


def test_each_run_is_proven_from_its_own_start(tmp_path: Path, make: Any, batch: Batch) -> None:
    trainer = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    trainer.train()
    first = trainer.proof
    trainer.train()
    second = trainer.proof
    assert first is not None
    assert second is not None
    after = {tensor.name: tensor.after for tensor in first.tensors}
    assert {tensor.name: tensor.before for tensor in second.tensors} == after


def test_a_checkpoint_carries_the_start_and_the_plan(tmp_path: Path, make: Any, batch: Batch) -> None:
    model = make()
    trainer = fl.Trainer(model, arguments(tmp_path), train_dataset=batch, freeze=LINE)
    start = fl.fingerprint(model)
    trainer.train()
    for step in (3, 6):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        assert json.loads((folder / "fingerprint.json").read_text(encoding="utf-8")) == start.to_dict() | {
            "from_step": 0
        }
        assert fl.Plan.load(folder) == fl.Plan(freeze=LINE)


def test_a_resumed_run_is_proven_from_the_true_start(tmp_path: Path, make: Any, batch: Batch) -> None:
    fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE).train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    resumed = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.proof is not None
    assert resumed.proof.from_step == 0
    start = json.loads((checkpoint / "fingerprint.json").read_text(encoding="utf-8"))["digests"]
    assert {tensor.name: tensor.before for tensor in resumed.proof.tensors} == start


class Thaw(TrainerCallback):
    """Thaws what the plan froze once training has begun, as a schedule of somebody's own might."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].get_parameter(FROZEN).requires_grad_(True)


def test_a_resumed_run_is_proven_by_the_flags_of_the_start(tmp_path: Path, make: Any, batch: Batch) -> None:
    fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE, callbacks=[Thaw()]).train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    values = json.loads((checkpoint / "fingerprint.json").read_text(encoding="utf-8"))
    frozen = set(values["frozen"])
    assert FROZEN in frozen
    # Frozen in the beginning, and not in the run that goes on: what becomes of it is told, and counts.
    values["frozen"] = sorted(frozen | {"classifier.bias"})
    (checkpoint / "fingerprint.json").write_text(json.dumps(values), encoding="utf-8")
    resumed = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.proof is not None
    assert not resumed.proof.ok
    assert "moved: classifier.bias; thawed by now: 1 of the frozen" in str(resumed.proof)
    assert resumed.proof.drifted_while_frozen == ()  # so that nothing is raised: somebody thawed it


def test_a_checkpoint_of_an_earlier_release_does_not_say_what_was_frozen(
    tmp_path: Path, make: Any, batch: Batch, heard: pytest.LogCaptureFixture
) -> None:
    fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE).train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    values = json.loads((checkpoint / "fingerprint.json").read_text(encoding="utf-8"))
    del values["frozen"]
    (checkpoint / "fingerprint.json").write_text(json.dumps(values), encoding="utf-8")
    heard.clear()
    resumed = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    file = checkpoint / "fingerprint.json"
    assert f"{file} does not say what was frozen: the proof goes by what is frozen now." in heard.messages
    assert resumed.proof is not None
    assert (resumed.proof.ok, resumed.proof.from_step) == (True, 0)
    assert sum(tensor.frozen for tensor in resumed.proof.tensors) > 5


def test_a_checkpoint_without_its_start_is_proven_from_there_and_told(
    tmp_path: Path, make: Any, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE).train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    (checkpoint / "fingerprint.json").unlink()
    capsys.readouterr()
    resumed = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert "the proof covers the run from step 3 on" in capsys.readouterr().err
    assert resumed.proof is not None
    assert resumed.proof.ok
    assert resumed.proof.from_step == 3
    assert "since step 3" in str(resumed.proof)
    assert trainer_proof(resumed, tmp_path / "saved")["from_step"] == 3
    # Who goes on with that run once more does not take its start for that of the whole.
    again = fl.Trainer(make(), arguments(tmp_path), train_dataset=batch, freeze=LINE)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
    assert again.proof is not None
    assert again.proof.from_step == 3


def test_a_run_resumed_in_another_folder_is_proven_from_its_own_start(tmp_path: Path, make: Any, batch: Batch) -> None:
    fl.Trainer(make(), arguments(tmp_path / "one"), train_dataset=batch, freeze=LINE).train()
    other = make()
    torch.nn.init.ones_(other.get_parameter(FROZEN))
    fl.Trainer(other, arguments(tmp_path / "two"), train_dataset=batch, freeze=LINE).train()
    resumed = fl.Trainer(make(), arguments(tmp_path / "two"), train_dataset=batch, freeze=LINE)
    resumed.train(resume_from_checkpoint=str(tmp_path / "one" / "run" / "checkpoint-3"))
    assert resumed.proof is not None
    assert resumed.proof.ok


@pytest.mark.parametrize("half", [*slow(False), True])
def test_interrupted_and_resumed_as_if_it_were_not(tmp_path: Path, make: Any, batch: Batch, half: bool) -> None:
    whole, part = make(), make()
    fl.Trainer(whole, arguments(tmp_path / "a"), train_dataset=batch, freeze=LINE).train()
    step = 5 if half else 3
    steps = {"save_strategy": "steps", "save_steps": step}
    fl.Trainer(part, arguments(tmp_path / "b", **steps), train_dataset=batch, freeze=LINE).train()
    resumed = make()
    trainer = fl.Trainer(resumed, arguments(tmp_path / "b", **steps), train_dataset=batch, freeze=LINE)
    trainer.train(resume_from_checkpoint=str(tmp_path / "b" / "run" / f"checkpoint-{step}"))
    assert same(whole.state_dict(), resumed.state_dict())


# For those who keep the Trainer of transformers


def test_the_callback_in_a_plain_trainer(tmp_path: Path, make: Any, batch: Batch) -> None:
    ours, theirs = make(), make()
    fl.Trainer(ours, arguments(tmp_path / "a"), train_dataset=batch, freeze=LINE, engine=False).train()
    callback = fl.FreezeCallback(LINE)
    trainer = transformers.Trainer(
        theirs, transformers.TrainingArguments(**options(tmp_path / "b")), train_dataset=batch, callbacks=[callback]
    )
    assert FROZEN not in trains(theirs)  # before an optimizer is made
    trainer.train()
    assert same(ours.state_dict(), theirs.state_dict())
    assert callback.proof is not None
    assert callback.proof.ok
    assert read_proof(tmp_path / "b" / "run")["ok"] is True


def test_the_callback_finds_drift(tmp_path: Path, make: Any, batch: Batch) -> None:
    trainer = transformers.Trainer(
        make(),
        transformers.TrainingArguments(**options(tmp_path)),
        train_dataset=batch,
        callbacks=[fl.FreezeCallback(train_only="head"), Meddle()],
    )
    with pytest.raises(DriftError):
        trainer.train()
    assert read_proof(tmp_path / "run")["ok"] is False


def test_the_callback_with_a_plan_that_fits_nothing(tmp_path: Path, make: Any) -> None:
    with pytest.raises(PlanError):
        fl.FreezeCallback("head", train_only="head")
    with pytest.raises(SelectorError):
        transformers.Trainer(
            make(), transformers.TrainingArguments(**options(tmp_path)), callbacks=[fl.FreezeCallback("nosuch")]
        )
