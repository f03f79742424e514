"""What people put into ``transformers.Trainer``: ``fl.Trainer`` takes it too, and gives the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, WeightedRandomSampler
from transformers import TrainerCallback

import frostline as fl
from tests.models import CHECKPOINTING
from tests.thinning import one_in, slow
from tests.training import tokens
from tests.training.beside import HELD_OUT, ROWS, OwnLoss, Weighted, assert_alike, both, losses, replayed

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import IterableDataset
    from torch import nn

KINDS = (fl.Trainer, transformers.Trainer)


def trainer_of(kind: Any, folder: Path, given: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A Trainer of either kind, with the same model, plan and rows."""
    args = tokens.arguments(folder / kind.__module__, **{"store": "memory"} | changes)
    usual: dict[str, Any] = {"data_collator": tokens.collate, "train_dataset": ROWS, "eval_dataset": HELD_OUT}
    return kind(model=_frozen(), args=args, **usual | (given or {}))


# Searches


@pytest.mark.slow
def test_a_search_for_hyperparameters(tmp_path: Path) -> None:
    """Each trial trains a new model with settings of its own, on the engine, as many as were asked for."""
    found = []
    for kind in KINDS:
        trainer: Any = kind(
            None,
            tokens.arguments(tmp_path / kind.__module__, store="memory", eval_strategy="epoch"),
            tokens.collate,
            ROWS,
            HELD_OUT,
            model_init=_frozen,
        )
        seen: list[dict[str, float]] = []
        best = trainer.hyperparameter_search(
            hp_space=lambda trial: {
                "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
                "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [4, 8]),
            },
            compute_objective=lambda metrics, seen=seen: seen.append(metrics) or metrics["eval_loss"],
            n_trials=3,
            backend="optuna",
            sampler=_sampler(),
        )
        found.append((best, [metrics["eval_loss"] for metrics in seen]))
        if isinstance(trainer, fl.Trainer):
            assert replayed(trainer) == 52
            assert trainer.proof is not None
            assert trainer.proof.ok
    (ours, our_losses), (theirs, their_losses) = found
    assert our_losses == pytest.approx(their_losses, abs=1e-4)
    assert len(set(our_losses)) > 2
    assert ours.hyperparameters == theirs.hyperparameters
    assert ours.run_id == theirs.run_id


def _frozen() -> Any:
    model = tokens.model()
    fl.freeze(model, tokens.LOWER)
    return model


def _sampler() -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.samplers.RandomSampler(seed=0)


# Rows and batches


def test_a_streamed_data_set(tmp_path: Path) -> None:
    def stream() -> IterableDataset:
        return ROWS.to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=10)

    ours, theirs = both(tmp_path, given={"train_dataset": stream()}, max_steps=10)
    assert_alike(ours, theirs)
    assert replayed(ours) == 40
    assert ours.engine_report is not None
    assert ours.engine_report.computed == 0  # kept as they came


class Weighty:
    """Draws rows by weight, some of them often."""

    def _get_train_sampler(self, *_: Any) -> WeightedRandomSampler:
        weights = [1.0 + row % 5 for row in range(len(ROWS))]
        return WeightedRandomSampler(weights, len(ROWS), generator=torch.Generator().manual_seed(3))


class Backwards:
    """Makes the whole loader itself."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        rows: Any = ROWS.select(range(len(ROWS))[::-1])
        batches = BatchSampler(SequentialSampler(rows), 6, drop_last=False)
        return DataLoader(rows, batch_sampler=batches, collate_fn=tokens.collate)


@pytest.mark.parametrize("mixin", [Weighty, *slow(Backwards)])
def test_a_sampler_of_one_s_own(tmp_path: Path, mixin: type) -> None:
    ours, theirs = both(tmp_path, mixin, given={"data_collator": tokens.padding()})
    assert_alike(ours, theirs)
    assert replayed(ours) == 40


def test_columns_that_the_model_does_not_take(tmp_path: Path) -> None:
    rows = ROWS.add_column("text", [f"row {number}" for number in range(len(ROWS))])
    ours, theirs = both(tmp_path, given={"train_dataset": rows})
    assert_alike(ours, theirs)
    assert replayed(ours) == 40


def test_several_evaluation_sets(tmp_path: Path) -> None:
    sets = {"one": HELD_OUT, "two": ROWS.select(range(8))}
    ours, theirs = both(tmp_path, given={"eval_dataset": sets}, eval_strategy="epoch", eval_on_start=True)
    assert_alike(ours, theirs)
    for name in ("eval_one_loss", "eval_two_loss"):
        values = [[entry[name] for entry in one.state.log_history if name in entry] for one in (ours, theirs)]
        assert len(values[0]) == 3
        assert values[0] == pytest.approx(values[1], abs=1e-4)


@pytest.mark.slow
def test_a_batch_size_that_is_found(tmp_path: Path) -> None:
    """Rows that do not fit into memory come in smaller batches, from the start."""

    class Small:
        def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
            if len(inputs["labels"]) > 4:
                raise RuntimeError("CUDA out of memory.")
            return super().compute_loss(model, inputs, *rest, **options)  # type: ignore[misc]

    ours, theirs = both(tmp_path, Small, auto_find_batch_size=True)
    assert_alike(ours, theirs)
    assert ours.state.train_batch_size == theirs.state.train_batch_size == 4
    assert replayed(ours) == 40


# Losses


class Smoothed(Weighted):
    """Class weights and label smoothing together."""

    smoothing = 0.1


class Attentive(OwnLoss):
    """Asks for attention weights only while it is evaluated."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        outputs = model(**inputs) if model.training else model(**inputs, output_attentions=True)
        return outputs.loss, outputs


def test_class_weights_and_label_smoothing(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, Smoothed, eval_strategy="epoch")
    assert_alike(ours, theirs)
    assert replayed(ours) == 52


def test_the_plain_path_in_evaluation_only(tmp_path: Path, heard: pytest.LogCaptureFixture) -> None:
    ours, theirs = both(tmp_path, Attentive, eval_strategy="epoch")
    assert_alike(ours, theirs)
    assert heard.messages.count("Plain path: output_attentions was given.") == 1
    assert replayed(ours) == 40


# Settings


SETTINGS: dict[str, dict[str, Any]] = {
    "bf16_full_eval": {"bf16_full_eval": True, "eval_strategy": "epoch"},
    "gradient checkpointing": {CHECKPOINTING: True},
    "noise on embeddings": {"neftune_noise_alpha": 5.0},
    "an optimizer by name": {"optim": "sgd", "learning_rate": 1e-1},
    "tokens counted": {"include_num_input_tokens_seen": "all"},
    "batches of metrics": {"batch_eval_metrics": False, "eval_strategy": "steps", "eval_steps": 3},
    "only the loss": {"prediction_loss_only": True, "eval_strategy": "epoch"},
    "a last batch that is dropped": {"dataloader_drop_last": True, "per_device_train_batch_size": 12},
    "workers": {"dataloader_num_workers": 1},
    "warmup and a cosine": {"warmup_steps": 3, "lr_scheduler_type": "cosine", "weight_decay": 0.1},
}


@pytest.mark.parametrize("case", one_in(2, SETTINGS))
def test_settings(tmp_path: Path, case: str) -> None:
    ours, theirs = both(tmp_path, **SETTINGS[case])
    if case == "bf16_full_eval":  # which leaves the model in bf16, here as there
        assert losses(ours) == pytest.approx(losses(theirs), abs=0.03)
    else:
        assert_alike(ours, theirs)
    assert ours.state.num_input_tokens_seen == theirs.state.num_input_tokens_seen
    assert ours.state.global_step == theirs.state.global_step


def test_more_than_one_device(tmp_path: Path, heard: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """DataParallel copies the model in each step, which leaves nothing for the engine to answer."""
    args = tokens.arguments(tmp_path)
    monkeypatch.setattr(type(args), "n_gpu", 2)
    model = tokens.model()
    trainer = fl.Trainer(model, args, tokens.collate, ROWS)
    monkeypatch.setattr(type(args), "n_gpu", 1)
    trainer.train()
    assert heard.messages.count("Engine: off, because DataParallel copies the model to 2 devices in each step.") == 1
    assert trainer.engine_report is None


# Events, and a run that goes on


def test_callbacks_hear_the_same(tmp_path: Path) -> None:
    class Listens(TrainerCallback):
        def __init__(self) -> None:
            self.heard: list[tuple[str, int]] = []

        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("on_") or name == "on_fill":
                return super().__getattribute__(name)
            return lambda args, state, control, **_: self.heard.append((name, state.global_step))

    listening = []
    for kind in KINDS:
        listener = Listens()
        trainer_of(kind, tmp_path, {"callbacks": [listener]}, eval_strategy="epoch", save_strategy="epoch").train()
        listening.append(listener.heard)
    assert listening[0] == listening[1]
    assert len({name for name, _ in listening[0]}) > 10


def test_a_callback_that_stops_and_a_run_that_goes_on(tmp_path: Path) -> None:
    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = control.should_save = state.global_step == 7

    whole = trainer_of(fl.Trainer, tmp_path / "whole", max_steps=15)
    whole.train()
    for kind in KINDS:
        trainer_of(kind, tmp_path / "part", {"callbacks": [Stops()]}, max_steps=15, save_strategy="steps").train()
        resumed = trainer_of(kind, tmp_path / "part", max_steps=15)
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == 15
        assert_alike(resumed, whole)


def test_a_loader_made_beside_training(tmp_path: Path) -> None:
    """Who takes the loader for purposes of their own gets the batches that the steps get."""
    batches = []
    for kind in KINDS:
        trainer = trainer_of(kind, tmp_path)
        transformers.set_seed(5)
        loader = trainer.get_train_dataloader()
        batches.append([batch["input_ids"] for batch in loader])
    assert len(batches[0]) == 5
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*batches, strict=True))
