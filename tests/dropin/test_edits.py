"""Frozen weights that are changed between two runs, in ways that leave no trace on the tensor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tests.dropin.pairs import assert_profits, assert_same_predictions
from tests.dropin.trunks import Classifier, Depth
from tests.training.beside import assert_alike, both

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def scaled_data(model: Any) -> None:
    model.bert.embeddings.word_embeddings.weight.data.mul_(1.5)


def new_data(model: Any) -> None:
    weight = model.bert.encoder.layer[1].output.dense.weight
    weight.data = weight.data.flip(0).clone()


def part_of_the_data(model: Any) -> None:
    model.bert.encoder.layer[0].attention.self.value.weight.data[3] *= -2


def through_numpy(model: Any) -> None:
    array = model.bert.embeddings.position_embeddings.weight.detach().numpy()
    array[:5] *= -1


def copied(model: Any) -> None:
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.copy_(torch.linspace(0.5, 1.5, 16))


def loaded(model: Any) -> None:
    state = model.state_dict()
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    model.load_state_dict(state | {name: state[name] * 2})


def exchanged(model: Any) -> None:
    layer = model.bert.encoder.layer[1].intermediate
    dense = nn.Linear(16, 32)
    dense.load_state_dict({name: tensor * 0.5 for name, tensor in layer.dense.state_dict().items()})
    layer.dense = dense.requires_grad_(requires_grad=False).eval()


EDITS: tuple[Callable[[Any], None], ...] = (
    scaled_data,
    new_data,
    part_of_the_data,
    through_numpy,
    copied,
    loaded,
    exchanged,
)
UNSEEN = (scaled_data, part_of_the_data, through_numpy)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_between_two_runs(tmp_path: Path, edit: Callable[[Any], None]) -> None:
    ours, theirs = both(tmp_path, make=Classifier)
    assert_alike(ours, theirs)
    for trainer in (ours, theirs):
        edit(trainer.model)
        trainer.train()
    assert_alike(ours, theirs)
    assert_same_predictions(ours, theirs)
    assert_profits(ours)
    assert ours.proof is not None
    assert ours.proof.ok


@pytest.mark.parametrize("edit", UNSEEN)
@pytest.mark.parametrize("frozen", ["lower", "trunk"])
def test_an_edit_before_an_evaluation(tmp_path: Path, frozen: Depth, edit: Callable[[Any], None]) -> None:
    ours, theirs = both(tmp_path, make=partial(Classifier, frozen), eval_strategy="epoch")
    assert_alike(ours, theirs)
    before = ours.evaluate()["eval_loss"]
    for trainer in (ours, theirs):
        edit(trainer.model)
    after = ours.evaluate()["eval_loss"]
    assert after == pytest.approx(theirs.evaluate()["eval_loss"], abs=1e-4)
    assert after != pytest.approx(before, abs=1e-4)
    assert_same_predictions(ours, theirs)


def test_two_edits_that_undo_each_other(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, make=Classifier)
    for factor in (2.0, 0.5):
        for trainer in (ours, theirs):
            model: Any = trainer.model
            model.bert.embeddings.word_embeddings.weight.data.mul_(factor)
            trainer.train()
        assert_alike(ours, theirs)


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_a_second_trainer_of_the_same_model(tmp_path: Path, store: str) -> None:
    """Its weights were edited since the first one."""
    models: dict[str, Any] = {}
    for turn in range(2):
        pair = []
        for kind in ("ours", "theirs"):
            if turn:
                scaled_data(models[kind])
            pair.append(models.get(kind))
        made = iter(pair)

        def make(made: Any = made) -> Any:
            return next(made) or Classifier()

        ours, theirs = both(tmp_path / str(turn), make=make, store=store, store_dir=str(tmp_path / "store"))
        assert_alike(ours, theirs)
        models = {"ours": ours.model, "theirs": theirs.model}
