"""The engine within the Trainer: what it gives is what transformers.Trainer gives, and it was taken."""

from __future__ import annotations

import gc
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
from frostline.engine import products
from frostline.engine.store.listing import describe, verify
from frostline.training.fast import FastPaths
from tests.training import tokens
from tests.training.beside import HELD_OUT, ROWS, OwnLoss, Weighted, assert_alike, both, losses, replayed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn


pytestmark = pytest.mark.usefixtures("heard")


@pytest.mark.parametrize("freeze", [None, tokens.LOWER])
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


CASES: dict[str, dict[str, Any]] = {
    "accumulation and clipping": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
    "max_steps": {"max_steps": 7},
    "label smoothing": {"label_smoothing_factor": 0.1},
    "length grouping": {"train_sampling_strategy": "group_by_length"},
    "evaluation": {"eval_strategy": "epoch"},
    "best model": {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
    "on disk": {"store": "disk"},
    "computed anew": {"store": "off"},
    "with padding": {"padding_free": False},
}


@pytest.mark.parametrize("case", CASES)
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
    report = ours.engine_report
    assert report is not None
    assert (report.rows, report.computed) == (0, 0)  # nothing was stored that no step would use


class DeepAtFirst(Deep):
    """Looks at them in the first three steps only, and calls the model by position from then on."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        trainer: Any = self
        if trainer.state.global_step < 3:
            return super().loss_of(model, inputs)
        outputs = model(inputs["input_ids"], inputs["attention_mask"], labels=inputs["labels"])
        return outputs.loss, outputs


def test_the_store_is_filled_when_a_step_first_makes_use_of_it(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, DeepAtFirst)
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


def test_a_collator_that_fails_on_rows_of_its_own_choice(tmp_path: Path) -> None:
    calls: list[int] = []

    def picky(batch: Any) -> dict[str, torch.Tensor]:
        calls.append(len(batch))
        if len(batch) not in {8, 12}:
            raise ValueError
        return tokens.collate(batch)

    ours, theirs = both(tmp_path, given={"data_collator": picky})
    assert_alike(ours, theirs)
    assert 4 in calls
    assert replayed(ours) == 40


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
        ({"torch_compile": True, "torch_compile_backend": "eager"}, "torch.compile fixes how the model runs"),
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


def test_the_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, _ = both(tmp_path)
    (line,) = [message for message in caplog.messages if message.startswith("Engine: ")]
    paths = "replay from layer 2, padding-free, last layer for the first token only"
    if products.is_faster(torch.device("cpu"), torch.float32):
        paths += ", matrix products by oneDNN"
    assert line.startswith(f"Engine: {paths}; activations in memory (")
    assert line.endswith("): as asked for.")
    assert line == str(ours.engine_report)


def test_bf16(tmp_path: Path) -> None:
    """The engine stands within autocast as the steps do."""
    ours, theirs = both(tmp_path, bf16=True)
    assert losses(ours) == pytest.approx(losses(theirs), abs=0.03)
    assert replayed(ours) >= 40


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_interrupted_while_the_store_is_filled(tmp_path: Path, store: str) -> None:
    class Stop(TrainerCallback):
        stops = True

        def on_fill(self, done: int, total: int) -> None:
            assert 0 < done <= total == 400
            if self.stops and done > 200:
                raise KeyboardInterrupt

    def train(callback: TrainerCallback) -> fl.Trainer:
        trainer = fl.Trainer(
            tokens.model(),
            tokens.arguments(
                tmp_path, freeze=tokens.LOWER, store=store, store_dir=str(tmp_path / "store"), max_steps=60
            ),
            tokens.collate,
            Dataset.from_list(tokens.rows(400)),
            callbacks=[callback],
        )
        trainer.train()
        return trainer

    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        train(stop)
    stop.stops = False
    report = train(stop).engine_report
    assert report is not None
    assert report.rows == 398  # two texts are there twice
    assert (report.computed < 200) == (store == "disk")


def test_why_no_earlier_store_serves_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = []
    for depth in ("layers[:2]", "layers[:2]", "layers[:1]"):
        caplog.clear()
        args = tokens.arguments(
            tmp_path, freeze=f"embeddings, {depth}", store="disk", store_dir=str(tmp_path / "store"), max_steps=1
        )
        fl.Trainer(tokens.model(), args, tokens.collate, ROWS).train()
        told.append([record.getMessage() for record in caplog.records if "a new one" in record.getMessage()])
    assert told[:2] == [[], []]
    assert len(told[2]) == 1
    assert "taken at" in told[2][0]


def test_a_budget_that_all_on_disk_exceeds_is_no_matter(tmp_path: Path) -> None:
    """What is on disk from an earlier run is used; only what is not there has no room."""

    def line(folder: str, budget: str | None) -> str:
        args = tokens.arguments(tmp_path, freeze=tokens.LOWER, store="disk", store_dir=folder, store_budget=budget)
        trainer = fl.Trainer(tokens.model(), args, tokens.collate, ROWS)
        trainer.train()
        return str(trainer.engine_report)

    folder, other = str(tmp_path / "store"), str(tmp_path / "other")
    assert line(folder, None).endswith("): as asked for.")
    assert line(folder, "10kB").endswith("): as asked for.")
    assert line(other, "10kB").endswith("exceed its 10 kB: what does not fit is computed anew.")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"store": "off"}, "nothing is stored: switched off"),
        ({"store": "off", "store_dtype": "bf16"}, "nothing is stored: switched off"),
        ({"frozen_mode": "train"}, "nothing is stored: frozen layers follow train(), dropout included"),
        ({"store": "memory", "store_dtype": "bf16"}, None),
    ],
)
def test_the_report_tells_of_what_is_stored_only_where_something_is(
    tmp_path: Path, changes: dict[str, Any], why: str | None
) -> None:
    args = tokens.arguments(tmp_path, freeze=tokens.LOWER, max_steps=2, **changes)
    trainer = fl.Trainer(tokens.model(), args, tokens.collate, ROWS)
    trainer.train()
    report = trainer.engine_report
    assert report is not None
    lines = report.explain().splitlines()
    (replay,) = [line for line in lines if line.startswith("replay: ")]
    if why is None:
        assert replay.startswith("replay: yes, runs from what is stored for layer 2")
        assert "changes logits" in lines[0]
    else:
        assert replay == f"replay: no, {why}"
        assert "bfloat16" not in report.explain()


@pytest.mark.parametrize("file", ["w0000.s0000.data", "w0000.index"])
@pytest.mark.parametrize("store", ["auto", "disk"])
def test_a_damaged_store_is_computed_anew_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, store: str
) -> None:
    def train(where: str) -> None:
        args = tokens.arguments(tmp_path, freeze=tokens.LOWER, store=where, store_dir=str(tmp_path / "store"))
        fl.Trainer(tokens.model(), args, tokens.collate, ROWS).train()
        gc.collect()  # the store is closed with its Trainer

    train("disk")
    (own,) = (tmp_path / "store").iterdir()
    content = (own / file).read_bytes()
    (own / file).write_bytes(b"\xff" + content[1:])
    caplog.clear()
    train(store)
    assert sum("has lost" in message for message in caplog.messages) == 1
    assert verify(own).faults == ()
    if store == "disk":
        assert describe(own).complete
        caplog.clear()
        train(store)
        assert not any("has lost" in message for message in caplog.messages)


def test_a_callback_of_the_trainer(tmp_path: Path) -> None:
    trainer = fl.Trainer(tokens.model(), tokens.arguments(tmp_path))
    assert sum(isinstance(callback, FastPaths) for callback in trainer.callback_handler.callbacks) == 1
    assert trainer.engine_report is None


def test_the_effect_of_the_dtype_that_is_stored_is_measured_and_said(tmp_path: Path) -> None:
    model = tokens.model()
    fl.freeze(model, tokens.LOWER)
    args = tokens.arguments(tmp_path, store="memory", store_dtype="bf16", max_steps=2)
    trainer = fl.Trainer(model, args, data_collator=tokens.collate, train_dataset=ROWS)
    trainer.train()
    report = trainer.engine_report
    assert report is not None
    check = next(check for check in report.check.checks if check.path == "store dtype")
    assert check.logits is not None
    assert 1e-5 < check.logits < 1e-1  # it was measured, and is what bfloat16 rounds
    assert f"bfloat16, which changes logits by up to {check.logits:.1e}" in str(report)
