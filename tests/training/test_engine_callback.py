"""The engine within the Trainer: what it gives is what transformers.Trainer gives, and it was taken."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

import frostline as fl
from frostline.training.engine_callback import EngineCallback
from tests.models import argument
from tests.thinning import one_in, slow
from tests.training import tokens
from tests.training.beside import HELD_OUT, ROWS, OwnLoss, Weighted, assert_alike, both, losses, replayed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn


pytestmark = pytest.mark.usefixtures("heard")


@pytest.mark.parametrize("freeze", [*slow(None), tokens.LOWER])
def test_a_hundred_steps(tmp_path: Path, freeze: str | None) -> None:
    ours, theirs = both(tmp_path, freeze=freeze, max_steps=100)
    assert_alike(ours, theirs)
    assert len(losses(ours)) == 100
    report = ours.engine_report
    assert report is not None
    assert report.check.paths.packing is not None
    assert report.check.paths.single == "first token"
    assert report.rows == (0 if freeze is None else 40)
    assert losses(ours)[0] != pytest.approx(losses(ours)[-1], abs=1e-2)  # it trains


_GROUPED = {"train_sampling_strategy": "group_by_length", "group_by_length": True}
_STRATEGY = argument("train_sampling_strategy", "group_by_length")
CASES: dict[str, dict[str, Any]] = {
    "accumulation and clipping": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
    "max_steps": {"max_steps": 7},
    "label smoothing": {"label_smoothing_factor": 0.1},
    "length grouping": {_STRATEGY: _GROUPED[_STRATEGY]},
    "evaluation": {"eval_strategy": "epoch"},
    "best model": {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
    "on disk": {"store": "disk"},
    "computed anew": {"store": "off"},
    "with padding": {"padding_free": False},
}


@pytest.mark.parametrize("case", one_in(2, CASES))
def test_arguments(tmp_path: Path, case: str) -> None:
    ours, theirs = both(tmp_path, **{"store_dir": str(tmp_path / "store")} | CASES[case])
    assert_alike(ours, theirs)
    report = ours.engine_report
    assert report is not None
    assert report.rows >= (0 if case == "computed anew" else 40)
    assert (report.choice is not None) == (report.check.boundary is not None)
    assert (report.check.paths.packing is None) == (case == "with padding")


def test_padded_to_a_fixed_length(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, given={"train_dataset": Dataset.from_list(tokens.rows(width=40))})
    assert_alike(ours, theirs)
    assert replayed(ours) == 40


class Deep(OwnLoss):
    """Looks at layers that the fast path does not compute."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        outputs = model(**inputs, output_hidden_states=True)
        return outputs.loss + outputs.hidden_states[1].pow(2).mean(), outputs


def test_a_loss_of_one_s_own(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, Weighted, eval_strategy="epoch")
    assert_alike(ours, theirs)
    assert replayed(ours) >= 40


def test_a_loss_that_needs_the_plain_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = both(tmp_path, Deep)
    assert_alike(ours, theirs)
    assert caplog.messages.count("Plain path: output_hidden_states was given.") == 1
    assert sum(message.startswith("Engine: ") for message in caplog.messages) == 1
    assert caplog.messages.count("Engine: the plain path; output_hidden_states was given.") == 1
    assert ours.engine_report is None  # nothing was tried, and nothing stored that no step would use


class DeepAtFirst(Deep):
    """Looks at them in the first three steps only, and calls the model by position from then on."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        trainer: Any = self
        if trainer.state.global_step < 3:
            return super().loss_of(model, inputs)
        outputs = model(inputs["input_ids"], inputs["attention_mask"], labels=inputs["labels"])
        return outputs.loss, outputs


def test_the_store_is_filled_when_a_step_first_makes_use_of_it(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, DeepAtFirst, given={"data_collator": tokens.padding()})
    assert_alike(ours, theirs)
    assert replayed(ours) == 40
    assert ours.engine_report is not None
    assert ours.engine_report.computed == 40


@pytest.mark.parametrize("bf16", [False, True])
def test_an_evaluation_within_the_first_step(tmp_path: Path, bf16: bool) -> None:
    class Looks:
        def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
            trainer: Any = self
            if trainer.state.global_step == 0 and model.training:
                model.eval()
                trainer.prediction_step(model, dict(inputs), prediction_loss_only=True)
                model.train()
            model(**inputs, output_hidden_states=True)  # on the plain path
            return transformers.Trainer.compute_loss(trainer, model, inputs, *rest, **options)

    ours, theirs = both(tmp_path, Looks, bf16=bf16)
    assert losses(ours) == pytest.approx(losses(theirs), abs=0.03 if bf16 else 1e-4)
    assert replayed(ours) >= 40


def test_a_loss_function(tmp_path: Path) -> None:
    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> Any:
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    ours, theirs = both(tmp_path, given={"compute_loss_func": loss})
    assert_alike(ours, theirs)
    assert replayed(ours) == 40


def test_metrics_and_predictions(tmp_path: Path) -> None:
    def metrics(prediction: Any) -> dict[str, float]:
        return {"right": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    ours, theirs = both(tmp_path, given={"compute_metrics": metrics}, eval_strategy="epoch")
    assert_alike(ours, theirs)
    one, other = ours.predict(HELD_OUT), theirs.predict(HELD_OUT)
    assert np.allclose(one.predictions, other.predictions, atol=1e-4)
    assert one.metrics is not None
    assert other.metrics is not None
    assert one.metrics["test_right"] == other.metrics["test_right"]


def test_evaluation_before_training(tmp_path: Path) -> None:
    results = []
    for kind in (fl.Trainer, transformers.Trainer):
        model = tokens.model()
        fl.freeze(model, tokens.LOWER)
        trainer: Any = kind(
            model=model,
            args=tokens.arguments(tmp_path, store="memory"),
            data_collator=tokens.collate,
            train_dataset=ROWS,
            eval_dataset=HELD_OUT,
        )
        first = trainer.evaluate()["eval_loss"]
        trainer.train()
        results.append((first, trainer, trainer.evaluate()["eval_loss"]))
    (first, ours, last), (other_first, theirs, other_last) = results
    assert (first, last) == pytest.approx((other_first, other_last), abs=1e-4)
    assert_alike(ours, theirs)
    assert replayed(ours) == 40


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from tokens.rows()


@pytest.mark.parametrize("store", ["auto", "memory"])
def test_a_stream(tmp_path: Path, store: str) -> None:
    ours, theirs = both(tmp_path, given={"train_dataset": Stream()}, max_steps=10, store=store)
    assert_alike(ours, theirs)
    report = ours.engine_report
    assert report is not None
    assert report.computed == 0
    assert report.rows == (40 if store == "memory" else 0)


def test_rows_of_a_data_set_of_one_s_own_are_kept_as_they_come(tmp_path: Path) -> None:
    class Own(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, row: int) -> Any:
            return ROWS[row]

    ours, theirs = both(tmp_path, given={"train_dataset": Own()})
    assert_alike(ours, theirs)
    assert replayed(ours) == 40
    assert ours.engine_report is not None
    assert ours.engine_report.computed == 0


def test_a_collator_that_draws(tmp_path: Path) -> None:
    """Rows that are others each time are computed as they come, and the draws are those of a run without the engine."""

    def masking(batch: Any) -> dict[str, torch.Tensor]:
        inputs = tokens.collate(batch)
        masked = (torch.rand(inputs["input_ids"].shape) < 0.2) & (inputs["input_ids"] > 2)
        inputs["input_ids"][masked] = 4
        return inputs

    ours, theirs = both(tmp_path, given={"data_collator": masking})
    assert_alike(ours, theirs)
    assert ours.engine_report is not None
    assert ours.engine_report.computed == 0


class Counting:
    """A collator of one's own that keeps what it was asked for, and fails on what no loader asks for."""

    def __init__(self) -> None:
        self.calls: list[list[list[int]]] = []

    def __call__(self, batch: Any) -> dict[str, torch.Tensor]:
        self.calls.append([row["input_ids"] for row in batch])
        if len(batch) != 8:
            raise ValueError
        return tokens.collate(batch)


def test_a_collator_of_one_s_own_is_called_by_the_loader_only(tmp_path: Path) -> None:
    collators: list[Counting] = []

    def given() -> dict[str, Any]:
        collators.append(Counting())
        return {"data_collator": collators[-1]}

    ours, theirs = both(tmp_path, given=given)
    assert_alike(ours, theirs)
    assert collators[0].calls == collators[1].calls
    assert len(collators[0].calls) == 10
    assert replayed(ours) == 40
    assert ours.engine_report is not None
    assert ours.engine_report.computed == 0  # kept as they came


def test_a_collator_of_transformers_fills_the_store_first(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, given={"data_collator": tokens.padding()})
    assert_alike(ours, theirs)
    assert replayed(ours) == 40
    assert ours.engine_report is not None
    assert ours.engine_report.computed == 40


def test_rows_of_one_width_are_filled_with_the_default_collator(tmp_path: Path) -> None:
    rows = Dataset.from_list(tokens.rows(width=24))
    given = {"train_dataset": rows, "eval_dataset": rows, "data_collator": transformers.default_data_collator}
    ours, theirs = both(tmp_path, given=given)
    assert_alike(ours, theirs)
    assert replayed(ours) == 40
    assert ours.engine_report is not None
    assert ours.engine_report.computed == 40


def test_random_states_are_left_alone(tmp_path: Path) -> None:
    """With dropout on, the store changes no draw."""

    class Draws(TrainerCallback):
        def __init__(self) -> None:
            self.drawn: list[Any] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.drawn.append((float(torch.rand(())), random.random(), float(np.random.rand())))  # noqa: NPY002, S311

    drawn = []
    for store in ("memory", "disk", "off"):
        draws = Draws()
        fl.Trainer(
            tokens.model(hidden_dropout_prob=0.1),
            tokens.arguments(tmp_path / store, store=store, store_dir=str(tmp_path / "store"), freeze=tokens.LOWER),
            tokens.collate,
            ROWS,
            callbacks=[draws],
        ).train()
        drawn.append(draws.drawn)
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 10


def test_a_new_model_per_trial(tmp_path: Path) -> None:
    def fresh(_trial: Any = None) -> Any:
        return tokens.model()

    trainer = fl.Trainer(
        None,
        tokens.arguments(tmp_path, store="memory", freeze=tokens.LOWER),
        tokens.collate,
        ROWS,
        model_init=fresh,
    )
    trainer.train()
    first, once = losses(trainer), trainer.engine_report
    trainer.train()  # transformers makes a new model for it
    assert losses(trainer) == pytest.approx(first, abs=1e-6)
    assert once is not None
    assert trainer.engine_report is not None
    assert trainer.engine_report is not once
    assert trainer.engine_report.rows == once.rows == 40


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"engine": False}, "it is switched off"),
        *slow(({"torch_compile": True, "torch_compile_backend": "eager"}, "torch.compile fixes how the model runs")),
    ],
)
def test_off(tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], why: str) -> None:
    ours, theirs = both(tmp_path, **changes)
    assert losses(ours) == losses(theirs)
    assert ours.engine_report is None
    assert caplog.messages.count(f"Engine: off, because {why}.") == 1


def test_frozen_layers_that_follow_train_are_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = both(tmp_path, frozen_mode="train")
    assert_alike(ours, theirs)
    (line,) = [message for message in caplog.messages if message.startswith("Engine: ")]
    assert line.endswith("nothing is stored: frozen layers follow train(), dropout included.")


def test_bf16(tmp_path: Path) -> None:
    """The engine stands within autocast as the steps do."""
    ours, theirs = both(tmp_path, bf16=True)
    assert losses(ours) == pytest.approx(losses(theirs), abs=0.03)
    assert replayed(ours) >= 40


def test_a_callback_of_the_trainer(tmp_path: Path) -> None:
    trainer = fl.Trainer(tokens.model(), tokens.arguments(tmp_path))
    assert sum(isinstance(callback, EngineCallback) for callback in trainer.callback_handler.callbacks) == 1
    assert trainer.engine_report is None
