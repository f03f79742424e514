"""The same training by ``fl.Trainer`` and by ``transformers.Trainer``, and what is compared of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from datasets import Dataset

import frostline as fl
from tests.training import tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = Dataset.from_list(tokens.rows())
HELD_OUT = Dataset.from_list(tokens.rows(12, seed=1))


class OwnLoss:
    """A loss of one's own, put into a Trainer as people do."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, return_outputs: bool = False, **__: Any) -> Any:
        loss, outputs = self.loss_of(model, inputs)
        return (loss, outputs) if return_outputs else loss

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        raise NotImplementedError


class Weighted(OwnLoss):
    """Class weights."""

    smoothing = 0.0

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        weight = torch.tensor([1.0, 3.0])
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels, weight=weight, label_smoothing=self.smoothing)
        return loss, outputs


def losses(trainer: transformers.Trainer) -> list[float]:
    """Every loss that was logged, in training and in evaluation."""
    return [entry[name] for entry in trainer.state.log_history for name in ("loss", "eval_loss") if name in entry]


def weights(trainer: transformers.Trainer) -> dict[str, torch.Tensor]:
    """The model's tensors, copied."""
    assert trainer.model is not None
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def both(
    tmp_path: Path,
    mixin: type | None = None,
    freeze: str | None = tokens.LOWER,
    given: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
    make: Callable[[], Any] = tokens.model,
    **changes: Any,
) -> tuple[fl.Trainer, transformers.Trainer]:
    """The same training by both Trainers, each with a model of its own; and what else is given, where it is made."""
    trained = []
    for kind in (fl.Trainer, transformers.Trainer):
        model = make()
        if freeze is not None:
            fl.freeze(model, freeze)
        usual: dict[str, Any] = {"data_collator": tokens.collate, "train_dataset": ROWS, "eval_dataset": HELD_OUT}
        args = tokens.arguments(tmp_path / kind.__module__, **{"store": "memory"} | changes)
        trainer: Any = type("Own", (kind,) if mixin is None else (mixin, kind), {})(
            model=model, args=args, **usual | ((given() if callable(given) else given) or {})
        )
        trainer.train()
        trained.append(trainer)
    return trained[0], trained[1]


def assert_alike(ours: transformers.Trainer, theirs: transformers.Trainer) -> None:
    """The same losses and weights, within 1e-4."""
    assert losses(ours) == pytest.approx(losses(theirs), abs=1e-4)
    assert len(losses(ours)) > 3
    own, other = weights(ours), weights(theirs)
    assert own.keys() == other.keys()
    assert all(torch.allclose(own[name], other[name], atol=1e-4, rtol=0) for name in own)


def replayed(trainer: fl.Trainer) -> int:
    """How many rows were replayed from a store."""
    report = trainer.engine_report
    assert report is not None
    assert report.check.boundary == "layer 2"
    assert report.check.paths.packing is not None
    return report.rows
