"""What projects do around the step: their own steps, callbacks, schedules of freezing, and runs that go on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback

from tests.dropin.pairs import assert_profits, assert_same_predictions, compared
from tests.dropin.trunks import Classifier, Depth, bert_classifier
from tests.models import CHECKPOINTING
from tests.training.beside import HELD_OUT, assert_alike, both, losses

if TYPE_CHECKING:
    from pathlib import Path


# Steps of one's own


class OwnStep:
    """It does the whole step itself."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        trainer: Any = self
        model.train()
        loss: torch.Tensor = model(**trainer._prepare_inputs(inputs)).loss
        trainer.accelerator.backward(loss)
        return loss.detach()


class AroundTheStep:
    """It does something before and after the usual step."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, inputs, *rest)  # type: ignore[misc]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(0.9)
        return loss


class FGM:
    """Embeddings are moved against the gradient, and a second backward adds to the first."""

    table = "word_embeddings.weight"

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        trainer: Any = self
        loss: torch.Tensor = super().training_step(model, inputs, *rest)  # type: ignore[misc]
        moved = {}
        for name, parameter in model.named_parameters():
            if self.table in name and parameter.grad is not None:
                moved[name] = parameter.data.clone()
                parameter.data.add_(0.5 * parameter.grad / parameter.grad.norm())
        trainer.accelerator.backward(trainer.compute_loss(model, trainer._prepare_inputs(inputs)))
        for name, parameter in model.named_parameters():
            if name in moved:
                parameter.data = moved[name]
        return loss


class FGMAbove(FGM):
    """It is a weight above what is frozen that is moved."""

    table = "layer.2.attention.self.query.weight"


class TwoSteps:
    """Each batch is taken twice, its gradients summed."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        first: torch.Tensor = super().training_step(model, dict(inputs), *rest)  # type: ignore[misc]
        second: torch.Tensor = super().training_step(model, dict(inputs), *rest)  # type: ignore[misc]
        return (first + second) / 2


@pytest.mark.parametrize(("mixin", "frozen"), [(OwnStep, "lower"), (FGM, "nothing"), (FGMAbove, "lower")])
def test_a_step_of_one_s_own(tmp_path: Path, mixin: type, frozen: Depth) -> None:
    compared(tmp_path, partial(Classifier, frozen), mixin, eval_strategy="epoch")


@pytest.mark.parametrize("mixin", [AroundTheStep, TwoSteps])
def test_more_around_the_usual_step(tmp_path: Path, mixin: type) -> None:
    assert_profits(compared(tmp_path, Classifier, mixin, eval_strategy="epoch"))


# Settings


SETTINGS: dict[str, dict[str, Any]] = {
    "accumulation with an uneven end": {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 3},
    "accumulation, one row at a time": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "a last batch of one row": {"per_device_train_batch_size": 13, "num_train_epochs": 3},
    "sgd": {"optim": "sgd", "learning_rate": 5e-2},
    "weight decay": {"weight_decay": 0.3, "learning_rate": 5e-3},
    "where it is kept left open": {"store": "auto"},
    "a store on disk": {"store": "disk"},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(tmp_path: Path, case: str) -> None:
    ours = compared(tmp_path, Classifier, store_dir=str(tmp_path / "store"), **SETTINGS[case])
    if case != "where it is kept left open":
        assert_profits(ours)


def test_bf16(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, make=Classifier, bf16=True)
    assert losses(ours) == pytest.approx(losses(theirs), abs=0.03)
    assert_profits(ours)


@pytest.mark.parametrize("frozen", ["nothing", "lower"])
def test_gradient_checkpointing(tmp_path: Path, frozen: Depth) -> None:
    options: dict[str, Any] = {CHECKPOINTING: True}
    compared(tmp_path, partial(bert_classifier, frozen), **options)


def test_rates_per_layer(tmp_path: Path) -> None:
    class Layered:
        def create_optimizer(self, *_: Any) -> Any:
            trainer: Any = self
            groups = [
                {"params": [parameter], "lr": 1e-3 * 0.9**depth}
                for depth, parameter in enumerate(reversed(list(trainer.model.parameters())))
            ]
            trainer.optimizer = torch.optim.AdamW(groups, eps=1e-5)
            return trainer.optimizer

    assert_profits(compared(tmp_path, Classifier, Layered))


# Callbacks


class Averages(TrainerCallback):
    """A moving mean of the weights, which is evaluated in their place."""

    def __init__(self) -> None:
        self.mean: dict[str, torch.Tensor] = {}
        self.own: dict[str, torch.Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        for name, tensor in model.state_dict().items():
            mean = self.mean.setdefault(name, tensor.detach().clone())
            mean.lerp_(tensor, 0.3)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.mean)

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.own:
            model.load_state_dict(self.own)


def test_a_moving_mean_of_weights(tmp_path: Path) -> None:
    compared(tmp_path, Classifier, None, lambda: {"callbacks": [Averages()]}, eval_strategy="epoch")


class Freezes(TrainerCallback):
    """After some steps a layer is frozen, or thawed."""

    def __init__(self, layer: int, *, trains: bool, step: int = 4) -> None:
        self.layer, self.trains, self.step = layer, trains, step

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step:
            model.bert.encoder.layer[self.layer].requires_grad_(self.trains)


class OfAll:
    """The optimizer is made for all parameters, so that what is thawed later trains."""

    def create_optimizer(self, *_: Any) -> Any:
        trainer: Any = self
        trainer.optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-3, eps=1e-5)
        return trainer.optimizer


CHANGES: dict[str, tuple[int, bool]] = {
    "the lowest that trains is frozen": (2, False),
    "the highest is frozen": (3, False),
    "the highest that is frozen is thawed": (1, True),
    "the lowest layer is thawed": (0, True),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_layer_whose_flags_change_in_the_middle(tmp_path: Path, case: str) -> None:
    layer, trains = CHANGES[case]

    def given() -> dict[str, Any]:
        return {"callbacks": [Freezes(layer, trains=trains)]}

    compared(tmp_path, Classifier, OfAll, given, eval_strategy="epoch")


def test_a_trunk_that_is_thawed_after_an_epoch(tmp_path: Path) -> None:
    class Thaws(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            model.bert.requires_grad_()

    compared(tmp_path, partial(Classifier, "trunk"), OfAll, lambda: {"callbacks": [Thaws()]}, eval_strategy="epoch")


def test_layers_that_are_thawed_one_by_one(tmp_path: Path) -> None:
    class Gradually(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            for layer in model.bert.encoder.layer[max(0, 3 - int(state.epoch or 0)) :]:
                layer.requires_grad_()

    def given() -> dict[str, Any]:
        return {"callbacks": [Gradually()]}

    compared(tmp_path, partial(Classifier, "trunk"), OfAll, given, num_train_epochs=4)


# Runs in several parts


def test_smoothing_with_early_stopping_and_a_run_that_goes_on(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "label_smoothing_factor": 0.1,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "num_train_epochs": 6,
        "learning_rate": 2e-2,
    }

    def given() -> dict[str, Any]:
        return {"callbacks": [EarlyStoppingCallback(early_stopping_patience=2)]}

    ours, theirs = both(tmp_path, None, None, given, make=bert_classifier, **changes)
    assert_alike(ours, theirs)
    assert_profits(ours)
    stopped = ours.state.global_step
    assert stopped == theirs.state.global_step < 30
    assert_same_predictions(ours, theirs)
    for trainer in (ours, theirs):
        torch.manual_seed(0)  # the order of rows is drawn before the checkpoint's random state is loaded
        trainer.train(resume_from_checkpoint=str(trainer.args.output_dir) + "/checkpoint-10")
    assert ours.state.global_step == theirs.state.global_step
    assert_alike(ours, theirs)
    assert_same_predictions(ours, theirs)


def test_stages_of_one_model(tmp_path: Path) -> None:
    """First the head, then the upper layers, each with a Trainer of its own."""
    kept: dict[bool, Any] = {}

    for stage, frozen in enumerate(("trunk", "lower")):
        turns = iter((True, False))

        def make(turns: Any = turns, frozen: Any = frozen) -> Any:
            ours = next(turns)
            model = kept.setdefault(ours, Classifier("trunk"))
            model.bert.encoder.layer[2:].requires_grad_(frozen == "lower")
            return model

        ours, theirs = both(tmp_path / str(stage), make=make)
        assert_alike(ours, theirs)
        assert_profits(ours, "layer 2" if frozen == "lower" else None)
        assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], abs=1e-4)


def test_other_rows_in_a_second_run(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, make=Classifier)
    for trainer in (ours, theirs):
        trainer.train_dataset = HELD_OUT
        trainer.train()
    assert_alike(ours, theirs)
