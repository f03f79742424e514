from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
import transformers
from accelerate.state import AcceleratorState, PartialState  # type: ignore[import-untyped]
from accelerate.utils import DistributedType  # type: ignore[import-untyped]
from transformers import AutoModelForSequenceClassification, HfArgumentParser

import frostline as fl
from frostline.errors import DriftError
from frostline.training import first_step as firststep
from tests.thinning import slow
from tests.training.pretrained import adapted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINE = "embeddings, layers[0]"
Batch = list[dict[str, Any]]


@pytest.fixture
def batch() -> Batch:
    draw = torch.Generator().manual_seed(1)
    return [
        {"input_ids": torch.randint(5, 160, (9,), generator=draw), "labels": torch.tensor(row % 2)} for row in range(12)
    ]


@pytest.fixture
def make(bert: Path, tmp_path: Path, batch: Batch) -> Callable[..., fl.Trainer]:
    """Builds a Trainer; what is no field of the arguments is one of its own keywords."""

    def _make(kind: Any = fl.Trainer, *, own: dict[str, Any] | None = None, **changes: Any) -> fl.Trainer:
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_pretrained(bert)
        values: dict[str, Any] = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-2}
        values |= {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
        values |= {"use_cpu": True, "dataloader_pin_memory": False}
        args = fl.TrainingArguments(str(tmp_path / "run"), **values | changes)
        return cast("fl.Trainer", kind(model=model, args=args, train_dataset=batch, **own or {}))

    return _make


@pytest.fixture
def warned() -> Any:
    """What the library warned of."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                lines.append(record.getMessage())

    listener = Listener()
    logging.getLogger("frostline").addHandler(listener)
    yield lines
    logging.getLogger("frostline").removeHandler(listener)


def losses(trainer: fl.Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_the_first_step_as_it_was(make: Any, warned: list[str]) -> None:
    assert make().first_step is None
    trainer = make(freeze=LINE)
    trainer.train()
    found = trainer.first_step
    assert found is not None
    assert found.verdict == "A step changes 20 of 41 parameter tensors: layers[1], pooler, head."
    assert [row.moved for row in found.rows] == ["no", "no", "yes", "yes", "yes"]
    assert found.rows[-1].learning_rates == (1e-2,)
    trainable = sum(p.nbytes for p in trainer.model.parameters() if p.requires_grad)
    assert found.copied_bytes == trainable
    assert warned == []


@pytest.mark.parametrize("changes", [{}, *slow({"freeze": LINE}, {"bf16": True}, {"gradient_accumulation_steps": 2})])
def test_training_is_the_same_with_and_without(make: Any, changes: dict[str, Any]) -> None:
    ends = []
    for probing in (True, False):
        trainer = make(probe=probing, **changes)
        trainer.train()
        assert (trainer.first_step is not None) == probing
        ends.append((losses(trainer), {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
    (watched, weights), (unwatched, others) = ends
    assert watched == unwatched
    assert len(watched) >= 2
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_what_the_optimizer_does_not_hold(make: Any, warned: list[str]) -> None:
    trainer = make(own={"probe": True}, freeze=LINE)
    held = [*trainer.model.classifier.parameters(), *trainer.model.bert.pooler.parameters()]
    trainer.optimizer = torch.optim.AdamW(held, lr=1e-2)
    trainer.train()
    (line,) = warned
    assert line.startswith("First step: 16 trainable by flag, but unmoved (not in the optimizer): bert.encoder.layer.1")


def with_adapters(trainer: fl.Trainer, **options: Any) -> fl.Trainer:
    """A Trainer of the same model with adapters, for the same rows and settings."""
    model = adapted(trainer.model, **options)
    return fl.Trainer(model, trainer.args, train_dataset=trainer.train_dataset)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"target_modules": "all-linear"}])
def test_factors_of_adapters_that_wait_for_the_other_one(make: Any, warned: list[str], options: dict[str, Any]) -> None:
    trainer = with_adapters(make(), **options)
    trainer.train()
    assert warned == []
    found = trainer.first_step
    assert found is not None
    factors = [one for one in found.parameters if ".lora_A." in one.name]
    assert factors
    assert {(one.gradient, one.moved, one.moved_later) for one in factors} == {("zero", False, True)}
    assert found.ok
    assert f"; {len(factors)} more, whose gradient was 0, moved in a later one." in found.verdict


def test_a_factor_that_gets_no_gradient_ever(make: Any, warned: list[str]) -> None:
    trainer = with_adapters(make(weight_decay=0.0))
    names = [name for name, _ in trainer.model.named_parameters() if ".lora_A." in name]  # type: ignore[union-attr]
    trainer.model.get_parameter(names[0]).register_hook(lambda gradient: gradient * 0)  # type: ignore[union-attr]
    trainer.train()
    assert warned == [f"First 3 steps: 1 trainable by flag, but unmoved (its gradient is 0): {names[0]}"]
    assert trainer.first_step is not None
    assert not trainer.first_step.ok


def test_beneath_a_head_of_zeros(make: Any, warned: list[str]) -> None:
    trainer = make()
    torch.nn.init.zeros_(trainer.model.classifier.weight)
    trainer.train()
    assert warned == []
    assert trainer.first_step.changes == "classifier.weight"  # two labels in balance leave the bias at 0 as well
    assert sum(one.moved_later for one in trainer.first_step.parameters) == 40


def test_adapters_beneath_a_head_of_zeros(make: Any, warned: list[str]) -> None:
    """The head moves in the first step, the second factors in the second, the first factors in the third."""
    trainer = with_adapters(make())
    for name, parameter in trainer.model.named_parameters():  # type: ignore[union-attr]
        if "classifier" in name:
            torch.nn.init.zeros_(parameter)
    trainer.train()
    assert warned == []
    assert trainer.first_step is not None
    assert trainer.first_step.ok


def test_a_run_of_one_step_says_nothing_of_what_waits(make: Any, warned: list[str]) -> None:
    trainer = with_adapters(make(max_steps=1))
    trainer.train()
    assert warned == []


def test_where_nothing_moves_nothing_is_waited_for(make: Any, warned: list[str]) -> None:
    trainer = make()
    for parameter in trainer.model.parameters():
        parameter.register_hook(torch.zeros_like)
    trainer.train()
    (line,) = warned
    assert line.startswith("First step: 41 trainable by flag, but unmoved (its gradient is 0): ")


def test_a_gradient_that_does_not_arrive(make: Any, warned: list[str]) -> None:
    trainer = make()
    trainer.model.classifier.spare = torch.nn.Linear(2, 2)
    trainer.train()
    assert warned == [
        "First step: 2 trainable by flag, but unmoved (no gradient): classifier.spare.weight, classifier.spare.bias"
    ]


class Decaying(torch.optim.SGD):
    """Decays in place what has no gradient, too."""

    def step(self, closure: Any = None) -> Any:
        done = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.decay(parameter)
        return done

    def decay(self, parameter: torch.Tensor) -> None:
        parameter.mul_(0.99)


class Creeping(Decaying):
    """Decays it into other tensors."""

    def decay(self, parameter: torch.Tensor) -> None:
        parameter.data = parameter.data * 0.99


def drifted(make: Any, optimizer: type[Decaying]) -> fl.Trainer:
    """A Trainer whose optimizer has moved what is frozen."""
    trainer: fl.Trainer = make(freeze="embeddings")
    assert trainer.model is not None
    trainer.optimizer = optimizer(trainer.model.parameters(), lr=1e-2)
    with pytest.raises(DriftError, match="Drift: "):
        trainer.train()
    return trainer


@pytest.mark.parametrize("optimizer", [Creeping, Decaying])
def test_what_is_frozen_and_moves(make: Any, warned: list[str], optimizer: type[Decaying]) -> None:
    drifted(make, optimizer)
    assert warned[0].startswith(
        "First step: 4 frozen by flag, but moved (the optimizer moves it without a gradient): bert.embeddings."
    )


def test_what_is_frozen_and_decays_in_place(make: Any) -> None:
    found = drifted(make, Decaying).first_step
    assert found is not None
    assert found.rows[0].moved == "partly"  # a bias of 0 stays 0


def test_of_more_frozen_weights_than_fit_nothing_is_said(
    make: Any, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firststep, "_fits", lambda _: True)
    monkeypatch.setattr(firststep, "_MOST_BYTES", 10)
    assert drifted(make, Decaying).first_step is None
    assert not any(line.startswith("First step: ") for line in warned)


def test_buffers_are_not_claimed_to_have_been_looked_at(make: Any) -> None:
    trainer = make(freeze=LINE)
    trainer.train()
    found = trainer.first_step
    assert found is not None
    assert found.rows[0].buffers == 2
    assert found.rows[0].buffers_moved is None
    lines = str(found).splitlines()
    assert next(line for line in lines if line.startswith("embeddings")).endswith("  not looked at")


def test_what_is_frozen_is_not_copied(make: Any) -> None:
    trainer = make(freeze="backbone")
    trainer.train()
    assert trainer.first_step is not None
    assert trainer.first_step.copied_bytes == sum(p.nbytes for p in trainer.model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("rate", "dtype"), [(1e-9, torch.bfloat16), (1e-12, torch.float32)])
def test_a_step_below_the_resolution_of_the_weights(rate: float, dtype: torch.dtype) -> None:
    model = torch.nn.Linear(2, 2).to(dtype)
    with torch.no_grad():
        model.weight.fill_(1)
        model.bias.fill_(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model(torch.ones(1, 2, dtype=dtype)).sum().backward()
    watched = firststep.FirstStep()
    watched.before(model, optimizer)
    optimizer.step()
    watched.after(model, optimizer)
    (said,) = watched.surprises
    assert said.startswith(f"2 trainable by flag, but unmoved (the change is lost to rounding in {str(dtype)[6:]}): ")


class Raising(torch.optim.SGD):
    """Fails in its step."""

    def step(self, closure: Any = None) -> Any:
        raise RuntimeError("no step")


@pytest.mark.parametrize("own", [False, True])
def test_nothing_is_left_behind_by_a_step_that_raises(own: bool) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = Raising(model.parameters(), lr=0.1)
    if own:  # as a scheduler leaves it
        optimizer.step = optimizer.step  # type: ignore[method-assign]
    before = dict(vars(optimizer))
    model(torch.ones(1, 2)).sum().backward()
    firststep.FirstStep().before(model, optimizer)
    with pytest.raises(RuntimeError, match="no step"):
        optimizer.step()
    assert vars(optimizer) == before
    assert torch.utils._python_dispatch._len_torch_dispatch_stack() == 0  # type: ignore[attr-defined]


def test_a_step_that_was_not_seen_is_not_told_of() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    watched = firststep.FirstStep()
    watched.before(model, optimizer)
    type(optimizer).step(optimizer)
    watched.after(model, optimizer)
    assert watched.done
    assert watched.probe is None
    assert "step" not in vars(optimizer)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "NO", "MULTI_GPU"])
def test_accelerate_says_whether_parameters_are_spread(make: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    trainer = make()
    model = trainer.model
    monkeypatch.setitem(AcceleratorState._shared_state, "distributed_type", DistributedType[kind])
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType[kind])
    assert firststep.can_be_watched(model) == (kind in {"NO", "MULTI_GPU"})


def test_a_warmup_that_begins_at_zero_is_no_alarm(make: Any, warned: list[str]) -> None:
    trainer = make(warmup_steps=2)
    trainer.train()
    assert warned == []
    assert trainer.first_step is not None
    assert trainer.first_step.ok
    assert trainer.first_step.rows[0].learning_rates == (5e-3,)


def test_a_group_that_rests_is_no_alarm(make: Any, warned: list[str]) -> None:
    trainer = make()
    groups = [{"params": trainer.model.bert.parameters(), "lr": 0.0}, {"params": trainer.model.classifier.parameters()}]
    trainer.optimizer = torch.optim.AdamW(groups, lr=1e-2)
    trainer.train()
    assert warned == []
    assert trainer.first_step is not None
    assert trainer.first_step.changes == "head"


def test_too_much_to_copy(make: Any, warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firststep, "_MOST_BYTES", 10)
    trainer = make()
    trainer.model.classifier.spare = torch.nn.Linear(2, 2)
    trainer.train()
    assert trainer.first_step is None
    assert warned == [
        "First step: 2 trainable by flag, but unmoved (no gradient): classifier.spare.weight, classifier.spare.bias"
    ]


class Skipped:
    """An optimizer whose step a gradient scaler skips."""

    step_was_skipped = True

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.param_groups = optimizer.param_groups


def test_a_skipped_step_is_not_judged() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    watched = firststep.FirstStep()
    watched.before(model, optimizer)
    watched.after(model, Skipped(optimizer))
    judged = watched.done
    assert not judged
    watched.before(model, optimizer)
    optimizer.step()
    watched.after(model, optimizer)
    assert watched.done
    assert watched.probe is not None
    assert watched.probe.ok


def test_the_callback_beside_a_trainer_of_transformers(make: Any) -> None:
    for probing in (True, False):
        callback = fl.FreezeCallback(LINE, probe=probing)
        make(transformers.Trainer, own={"callbacks": [callback]}).train()
        assert (callback.first_step is not None) == probing


def test_it_is_switched_off(make: Any, tmp_path: Path) -> None:
    for trainer in (make(probe=False), make(own={"probe": False})):
        trainer.train()
        assert trainer.first_step is None
    parser = HfArgumentParser(cast("Any", fl.TrainingArguments))
    (parsed,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--no_probe"])
    assert parsed.probe is False
