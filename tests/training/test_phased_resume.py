"""A run by phases that is killed at any step and resumed ends as one that is not: bit by bit, with dropout on."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

import frostline as fl
from frostline.errors import PlanError
from frostline.plan.phase import Phase
from frostline.plan.schedule import OptimizerState, Schedule
from tests.processes import python
from tests.thinning import slow
from tests.training import tokens

ROOT = Path(__file__).parents[2]
# Six steps in an epoch, four epochs. Every kind of end, every kind of rate, what is drawn, and what freezes again.
FIVE = (
    Phase("head", until="3 steps", lr=1e-2),
    Phase("layers[-2:], pooler, head", until="plateau of eval_loss", lr={"head": "2x"}),
    Phase("all", until="1 epoch", layers="2 random every 2 steps", layer_decay=0.5),
    Phase("head, layers[2:]", until="25%", warmup=2),
    Phase("all", layers="unsettled every 2 steps"),
)
STEPS = 24
STATES: tuple[OptimizerState, ...] = ("kept", "reset")
KILLED = random.Random(7)  # noqa: S311 - no secret


class Killed(Exception):  # noqa: N818 - it is no error
    pass


class KillAt(TrainerCallback):
    """Ends the process, as far as a test can, before a step is noted."""

    def __init__(self, step: int, event: str) -> None:
        self._step = step
        setattr(self, event, self._kill)

    def _kill(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            raise Killed


def trainer(folder: Path, schedule: Any, *callbacks: TrainerCallback, **changes: Any) -> fl.Trainer:
    values: dict[str, Any] = {"engine": False, "num_train_epochs": 4, "save_strategy": "steps", "save_steps": 2}
    values |= {"eval_strategy": "steps", "eval_steps": 2, "warmup_steps": 2, "lr_scheduler_type": "cosine"}
    values |= {"probe": False}
    return fl.Trainer(
        tokens.model(hidden_dropout_prob=0.1),
        tokens.arguments(folder, **values | changes),
        tokens.padding(),
        Dataset.from_list(tokens.rows(48)),
        Dataset.from_list(tokens.rows(12, seed=1)),
        schedule=schedule,
        callbacks=list(callbacks),
    )


def state(trained: fl.Trainer) -> dict[str, torch.Tensor]:
    assert trained.model is not None
    return {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}


def assert_same(one: fl.Trainer, other: fl.Trainer) -> None:
    left, right = state(one), state(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert one.proof is not None
    assert other.proof is not None
    assert one.proof.phases == other.proof.phases
    assert one.proof.tensors == other.proof.tensors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fl.Trainer]:
    trained: dict[str, fl.Trainer] = {}
    for kept in STATES:
        trained[kept] = trainer(tmp_path_factory.mktemp(kept), Schedule(FIVE, kept))
        trained[kept].train()
    return trained


def test_the_run_is_no_trivial_one(whole: dict[str, fl.Trainer]) -> None:
    proof = whole["kept"].proof
    assert proof is not None
    assert [phase.number for phase in proof.phases] == [1, 2, 3, 4, 5]
    assert proof.phases[-1].to_step == STEPS
    assert all(before.to_step == after.from_step for before, after in zip(proof.phases, proof.phases[1:], strict=False))
    assert proof.ok
    left, right = state(whole["kept"]), state(whole["reset"])
    assert any(not torch.equal(left[name], right[name]) for name in left)  # what becomes of the optimizer's state


def _drawn(step: int) -> tuple[int, str, OptimizerState]:
    """A step, where in it the run is killed, and what becomes of the optimizer's state."""
    event = KILLED.choice(["on_step_begin", "on_pre_optimizer_step", "on_step_end", "on_evaluate", "on_save"])
    at = max(4, step - step % 2) if event in {"on_evaluate", "on_save"} else step  # which there are every two steps
    return at, event, KILLED.choice(STATES)


# The first three are about where phases end; the others are drawn. A checkpoint is there from step 2 on.
AT = [*map(_drawn, (3, 8, 14)), *slow(*(_drawn(KILLED.randrange(3, STEPS)) for _ in range(27)))]


@pytest.mark.parametrize(("step", "event", "kept"), AT)
def test_killed_at_any_step(
    tmp_path: Path, whole: dict[str, fl.Trainer], step: int, event: str, kept: OptimizerState
) -> None:
    ended = trainer(tmp_path, Schedule(FIVE, kept), KillAt(step, event))
    with pytest.raises(Killed):
        ended.train()
    resumed = trainer(tmp_path, Schedule(FIVE, kept))
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, whole[kept])


@pytest.mark.parametrize("place", [1, *slow(0, 2, 3)])
def test_a_checkpoint_where_a_phase_ends(tmp_path: Path, whole: dict[str, fl.Trainer], place: int) -> None:
    proof = whole["reset"].proof
    assert proof is not None
    step = proof.phases[place].to_step
    ended = trainer(tmp_path, Schedule(FIVE, "reset"), KillAt(step, "on_step_begin"), save_steps=1)
    with pytest.raises(Killed):
        ended.train()
    assert (tmp_path / f"checkpoint-{step}").is_dir()
    resumed = trainer(tmp_path, Schedule(FIVE, "reset"), save_steps=1)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, whole["reset"])


@pytest.mark.parametrize("step", [6, *slow(3, 13, 18, 23)])
def test_a_process_that_is_killed(tmp_path: Path, whole: dict[str, fl.Trainer], step: int) -> None:
    done = python("-m", "tests.training.killed", tmp_path, step)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = trainer(tmp_path, Schedule(FIVE))
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, whole["kept"])


@pytest.mark.parametrize("step", [3, *slow(8, 15)])
def test_killed_on_the_engine(tmp_path: Path, step: int) -> None:
    fast = {"engine": True, "store": "memory"}
    through = trainer(tmp_path / "whole", Schedule(FIVE), **fast)
    through.train()
    ended = trainer(tmp_path / "out", Schedule(FIVE), KillAt(step, "on_step_end"), **fast)
    with pytest.raises(Killed):
        ended.train()
    resumed = trainer(tmp_path / "out", Schedule(FIVE), **fast)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, through)


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trainer(tmp_path, Schedule(FIVE), KillAt(5, "on_step_begin")).train()
    with pytest.raises(PlanError, match="was written under another schedule"):
        trainer(tmp_path, Schedule(FIVE[:1])).train(resume_from_checkpoint=True)
    file = tmp_path / "checkpoint-4" / "schedule.json"
    for damaged in (
        "{}",
        "[1",
        '{"version": 2}',
        file.read_text(encoding="utf-8").replace('"applied": ', '"applied": 9'),
    ):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(PlanError, match="schedule"):
            trainer(tmp_path, Schedule(FIVE)).train(resume_from_checkpoint=True)
    file.unlink()
    with pytest.raises(PlanError, match=r"holds no schedule\.json, so how far its schedule had come is not known"):
        trainer(tmp_path, Schedule(FIVE)).train(resume_from_checkpoint=True)
