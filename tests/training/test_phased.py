"""Training by phases does what a loop written by hand does, and proves it phase by phase."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback

import frostline as fl
from frostline.errors import DriftError, PlanError, SelectorError
from frostline.plan.schedule import Schedule
from tests.thinning import slow
from tests.training import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

THREE = [
    fl.Phase("head", until="3 steps", lr=1e-2),
    fl.Phase("layers[-1:], pooler, head", until="3 steps", lr={"head": "2x"}),
    fl.Phase("all", lr=5e-4, layer_decay=0.5, warmup=2),
]
STEPS = 10
ROWS = Dataset.from_list(tokens.rows())
HELD_OUT = Dataset.from_list(tokens.rows(12, seed=1))
TOP = "bert.encoder.layer.3.output.dense.weight"


class Keeps:
    """A collator that keeps the batches that it made."""

    def __init__(self) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []

    def __call__(self, rows: Sequence[tokens.Row]) -> dict[str, torch.Tensor]:
        self.batches.append(tokens.collate(rows))
        return dict(self.batches[-1])


class Watches(TrainerCallback):
    """Notes in each step what trains, and what the optimizer holds."""

    def __init__(self) -> None:
        self.trained: list[set[str]] = []
        self.training: list[set[str]] = []
        self.groups: list[list[int]] = []
        self.states: list[int] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self.trained.append({name for name, one in model.named_parameters() if one.grad is not None})
        self.training.append({name for name, module in model.named_modules() if module.training})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.groups.append([len(group["params"]) for group in kwargs["optimizer"].param_groups])
        self.states.append(len(kwargs["optimizer"].state))


def train(folder: Path, schedule: Any, *callbacks: TrainerCallback, collator: Any = None, **changes: Any) -> fl.Trainer:
    trainer = fl.Trainer(
        tokens.model(),
        tokens.arguments(folder, **{"store": "memory", "engine": False} | changes),
        collator or tokens.padding(),
        ROWS,
        HELD_OUT,
        schedule=schedule,
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def losses(trainer: transformers.Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def proof(trainer: fl.Trainer) -> Any:
    assert trainer.proof is not None
    return trainer.proof


def by_hand(batches: Sequence[dict[str, torch.Tensor]]) -> list[float]:
    """The same three phases, as one writes them without a library."""
    model = tokens.model().train()
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW([{"params": [one]} for one in named.values()], lr=1.0, eps=1e-5, weight_decay=0.0)
    found = []
    for step, batch in enumerate(batches[:STEPS]):
        for name, group in zip(named, optimizer.param_groups, strict=True):
            in_head, in_top = name.startswith("classifier"), "layer.3" in name or "pooler" in name
            layer = next((number for number in range(4) if f".layer.{number}." in name), -1)
            above = 0 if in_head or "pooler" in name else 4 - layer
            if step < 3:
                rate = 1e-2 if in_head else 0.0
            elif step < 6:
                rate = 2e-3 if in_head else 1e-3 if in_top else 0.0
            else:
                rate = 5e-4 * 0.5**above * min(1.0, (step - 5) / 3)
            named[name].requires_grad_(rate > 0)
            group["lr"] = rate * (1 - step / STEPS)
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([one for one in named.values() if one.grad is not None], 1.0)
        optimizer.step()
        found.append(loss.item())
    return found


def test_the_same_as_by_hand_and_on_the_engine(tmp_path: Path) -> None:
    keeps = Keeps()
    plain = train(tmp_path, THREE, collator=keeps)
    assert losses(plain) == pytest.approx(by_hand(keeps.batches), abs=1e-5)
    fast = train(tmp_path, THREE, engine=True)
    assert losses(fast) == pytest.approx(losses(plain), abs=1e-5)
    assert len(losses(fast)) == STEPS
    # The highest rate in force is what is logged.
    rates = [entry["learning_rate"] for entry in plain.state.log_history if "loss" in entry]
    assert rates == pytest.approx(
        [1e-2, 9e-3, 8e-3, 1.4e-3, 1.2e-3, 1e-3, 5e-4 / 3 * 0.4, 5e-4 / 1.5 * 0.3, 1e-4, 5e-5]
    )


def test_what_trains_and_what_the_optimizer_holds(tmp_path: Path) -> None:
    watches = Watches()
    trainer = train(tmp_path, THREE, watches)
    everything = {name for name, _ in trainer.model.named_parameters()}  # type: ignore[union-attr]
    assert watches.trained[:3] == [{"classifier.weight", "classifier.bias"}] * 3
    assert all(TOP in names and "bert.embeddings.word_embeddings.weight" not in names for names in watches.trained[3:6])
    assert watches.trained[6:] == [everything] * 4
    assert "bert.encoder" not in watches.training[0]  # what is frozen stays in eval mode
    assert "bert.encoder.layer.3" in watches.training[3]
    assert "bert.encoder.layer.2" not in watches.training[5]
    assert "bert.encoder" in watches.training[6]
    assert len({tuple(groups) for groups in watches.groups}) == 1  # its groups are fixed from the start
    assert sum(watches.groups[0]) == len(everything)
    assert watches.states == [2] * 3 + [20] * 3 + [len(everything)] * 4


def test_each_phase_is_proven(tmp_path: Path) -> None:
    found = proof(train(tmp_path, THREE, engine=True))
    assert found.ok
    assert [(one.number, one.from_step, one.to_step, one.train) for one in found.phases] == [
        (1, 0, 3, "head"),
        (2, 3, 6, "layers[-1:], pooler, head"),
        (3, 6, 10, "all"),
    ]
    assert [one.moved for one in found.phases] == [one.others for one in found.phases]
    assert found.phases[0].frozen > found.phases[1].frozen > found.phases[2].frozen == 0
    assert "frozen tensors bit-identical by phase: 1: " in str(found)
    two = proof(train(tmp_path, [THREE[0], fl.Phase("layers[2:], head")]))
    assert {one.name for one in two.tensors if one.frozen} >= {"bert.pooler.dense.weight"}
    assert {one.unit for one in two.tensors if one.moved} == {"layer 2", "layer 3", "head"}


def test_the_first_step_of_each_phase_is_watched(tmp_path: Path, heard: pytest.LogCaptureFixture) -> None:
    looked: list[set[str]] = []

    class Looks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            first = trainer.first_step
            looked.append({one.name for one in first.parameters if one.moved} if first is not None else set())

    phases = [fl.Phase("all", until="3 steps"), fl.Phase("head", until="3 steps"), fl.Phase("layers[3], head")]
    trainer = fl.Trainer(
        tokens.model(), tokens.arguments(tmp_path, engine=False), tokens.padding(), ROWS, schedule=phases,
        callbacks=[Looks()],
    )  # fmt: skip
    trainer.train()
    assert [len(names) for names in looked] == [73] * 3 + [2] * 3 + [18] * 4
    assert not [record for record in heard.records if record.levelname == "WARNING"]


class Meddle(TrainerCallback):
    """Moves what is frozen in the first phase only."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            with torch.no_grad():
                kwargs["model"].get_parameter(TOP)[0, 0] += 1e-3


def test_a_drift_within_a_phase_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DriftError, match=rf"Drift in phase 1 \(steps 1 to 3\): 1 of 73 frozen tensors moved: {TOP}"):
        train(tmp_path, THREE, Meddle())
    assert json.loads((tmp_path / "proof.json").read_text(encoding="utf-8"))["ok"] is False


def test_the_files_bear_the_phases_out(tmp_path: Path) -> None:
    trainer = train(tmp_path, [THREE[0], fl.Phase("layers[2:], head")])
    trainer.save_model(str(tmp_path / "saved"))
    assert fl.verify_run(tmp_path / "saved", no_base=True).ok
    file = tmp_path / "saved" / "proof.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    for change in ({"train": "all", "frozen": 0}, {"frozen": 3}, {"to_step": 2}):
        phases = [values["phases"][0] | change, values["phases"][1]]
        file.write_text(json.dumps(values | {"phases": phases}), encoding="utf-8")
        assert not fl.verify_run(tmp_path / "saved", no_base=True).ok


def test_the_best_model_of_an_earlier_phase_is_no_drift(tmp_path: Path) -> None:
    trainer = train(
        tmp_path,
        [fl.Phase("all", until="1 epoch", lr=1e-3), fl.Phase("head", lr=1.0)],  # which spoils it
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    assert trainer.state.best_global_step == 5
    assert proof(trainer).ok
    assert proof(trainer).phases[1].frozen > 70


def test_a_plateau(tmp_path: Path) -> None:
    watches = Watches()
    phases = [fl.Phase("head", until="plateau of eval_loss for 2 evaluations", lr=1e-12), fl.Phase("all")]
    found = proof(train(tmp_path, phases, watches, eval_strategy="steps", eval_steps=1))
    assert [(one.number, one.from_step, one.to_step) for one in found.phases] == [(1, 0, 3), (2, 3, 10)]
    with pytest.raises(PlanError, match=r"Phase 1 waits for 'eval_f1', and evaluations give eval_loss, eval_"):
        train(tmp_path, [fl.Phase("head", until="plateau of eval_f1"), fl.Phase("all")], eval_strategy="epoch")


def test_the_last_phase_may_end_the_run(tmp_path: Path) -> None:
    trainer = train(tmp_path, [fl.Phase("head", until="2 steps"), fl.Phase("all", until="3 steps")])
    assert trainer.state.global_step == 5
    assert [one.to_step for one in proof(trainer).phases] == [2, 5]


def test_what_is_over_is_not_gone_on_with(tmp_path: Path) -> None:
    phases = [fl.Phase("head", until="2 steps"), fl.Phase("all", until="3 steps")]
    trainer = train(tmp_path, phases, save_strategy="epoch")
    with pytest.raises(PlanError, match=r"The schedule was over at step 5: nothing is left to train\."):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("kept", ["kept", "reset"])
def test_what_freezes_and_thaws_again(tmp_path: Path, kept: Any) -> None:
    class Steps(TrainerCallback):
        taken: dict[int, float] = {}  # noqa: RUF012 - of one test

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            values = kwargs["optimizer"].state.get(kwargs["model"].get_parameter(TOP), {})
            self.taken[state.global_step] = float(values.get("step", 0))

    phases = (fl.Phase("all", until="3 steps"), fl.Phase("head", until="3 steps"), fl.Phase("all"))
    train(tmp_path, Schedule(phases, kept), steps := Steps())
    assert [steps.taken[step] for step in (3, 6, 7)] == [3, 3, 4 if kept == "kept" else 1]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([fl.Phase("head", until="20 steps"), fl.Phase("all")], "Phase 2 would begin after 20 steps, and the run has"),
        ([fl.Phase("head", until="20 steps")], "Phase 1 would end after 20 steps, and the run has 10"),
        ([fl.Phase("head", until="plateau of eval_loss"), fl.Phase("all")], "Phase 1: .* waits for evaluations"),
        ([fl.Phase("hed")], "Phase 1: .*hed"),
        ("head-olny", "Did you mean 'head-only'"),
    ],
)
def test_what_does_not_fit_the_run(tmp_path: Path, phases: Any, message: str) -> None:
    with pytest.raises((PlanError, SelectorError), match=message):
        train(tmp_path, phases)


def test_two_answers_to_what_trains(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="Both a schedule and freeze or train_only say what trains"):
        fl.Trainer(tokens.model(), tokens.arguments(tmp_path), schedule="head-only", freeze="backbone")
    with pytest.raises(PlanError, match="schedule='lisa' was given to the Trainer, and schedule='bitfit' in its arg"):
        fl.Trainer(tokens.model(), tokens.arguments(tmp_path, schedule="bitfit"), schedule="lisa")


def test_an_optimizer_that_lacks_what_thaws(tmp_path: Path) -> None:
    model = tokens.model()
    optimizer = torch.optim.AdamW([one for name, one in model.named_parameters() if "classifier" in name])
    trainer = fl.Trainer(
        model, tokens.arguments(tmp_path), tokens.padding(), ROWS, optimizers=(optimizer, None), schedule=THREE
    )
    with pytest.raises(PlanError, match=r"Phase 2 trains \S+ and 17 more, which the optimizer does not hold"):
        trainer.train()


def test_a_plain_trainer_with_the_callback(tmp_path: Path) -> None:
    callback = fl.FreezeCallback(schedule=THREE)
    args = transformers.TrainingArguments(**tokens.options(tmp_path))
    theirs = transformers.Trainer(tokens.model(), args, tokens.padding(), ROWS, callbacks=[callback])
    theirs.train()
    assert losses(theirs) == pytest.approx(losses(train(tmp_path, THREE)), abs=1e-6)
    assert callback.proof is not None
    assert len(callback.proof.phases) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 2, "num_train_epochs": 4},
        *slow({"bf16": True}),
        *slow({"max_steps": 12, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2, "max_grad_norm": 0.1}),
        *slow({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}),
        *slow({"optim": "adafactor"}, {"optim": "sgd"}),
    ],
)
def test_other_arguments_keep_working(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = [train(tmp_path, THREE, engine=engine, **changes) for engine in (False, True)]
    close = 2e-2 if "bf16" in changes else 1e-5
    assert losses(found[1]) == pytest.approx(losses(found[0]), abs=close)
    assert [len(proof(one).phases) for one in found] == [3, 3]
    assert all(proof(one).ok for one in found)


def test_what_is_drawn_and_what_settles(tmp_path: Path) -> None:
    watches = Watches()
    drawn = train(tmp_path, [fl.Phase("all", layers="2 random every 1 step")], watches, engine=True)
    assert proof(drawn).ok
    per_step = [sum(f".layer.{layer}.output.dense.weight" in name for name in names for layer in range(4))
                for names in watches.trained]  # fmt: skip
    assert per_step == [2] * STEPS
    assert len({frozenset(names) for names in watches.trained}) > 1
    settles = Watches()
    train(tmp_path, [fl.Phase("all", layers="unsettled every 2 steps")], settles)
    sizes = [len(names) for names in settles.trained]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 75 - 2 > sizes[-1]


def test_stores_on_disk_move_with_the_frost_line_and_are_found_again(tmp_path: Path) -> None:
    phases = [fl.Phase("layers[3], head", until="5 steps", lr=1e-12), fl.Phase("layers[2:], head", lr=1e-12)]
    changes = {"engine": True, "store": "disk", "store_dir": str(tmp_path / "stores")}
    first = train(tmp_path, phases, **changes)
    stores = {entry.name for entry in (tmp_path / "stores").iterdir()}
    assert len([name for name in stores if not name.startswith(".")]) >= 2
    again = train(tmp_path, phases, **changes)
    assert {entry.name for entry in (tmp_path / "stores").iterdir()} == stores
    for trainer, computed in ((first, 40), (again, 0)):
        report = trainer.engine_report
        assert report is not None
        assert report.check.boundary == "layer 2"
        assert report.computed == computed
