"""Random small models: 20 steps of ``fl.Trainer`` are those of ``transformers.Trainer``."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten

from tests.dropin.random_models import model_of
from tests.dropin.random_recipes import Recipe, recipe_of
from tests.dropin.random_rows import given
from tests.training.beside import both, losses, weights

if TYPE_CHECKING:
    from pathlib import Path

    import frostline as fl

FEW = (2, 6, 8, 9, 34, 49, 57, 70, 80, 98, 128, 194)  # of many kinds; 6 and 70 are ordinary ones
MANY = [seed for seed in range(400) if seed not in FEW]
_WITHIN = 1e-4


@pytest.mark.parametrize("seed", FEW)
def test_a_random_model(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_random_models(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, seed)


def test_models_are_the_same_each_time() -> None:
    one, other = (model_of(recipe_of(5)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def compare(tmp_path: Path, seed: int) -> None:
    """Train the model of a seed by both Trainers and compare; what fails says what the model is."""
    recipe = recipe_of(seed)
    try:
        _compare(tmp_path, recipe)
    except Exception as error:
        test = "test_a_random_model" if seed in FEW else "test_many_random_models"
        where = f"tests/dropin/test_random_models.py::{test}[{seed}]"
        error.add_note(f"{recipe}\nAgain: python -m pytest -n0 -m '' '{where}'")
        raise


def _compare(tmp_path: Path, recipe: Recipe) -> None:
    # The least that counts in a gradient lies far above rounding, or Adam would make steps of it.
    settings: dict[str, Any] = {"max_steps": 20, "learning_rate": 3e-3, "adam_epsilon": 1e-3, "probe": False}
    settings |= {"eval_strategy": "steps", "eval_steps": 12}
    size = {"per_device_train_batch_size": recipe.batch, "per_device_eval_batch_size": recipe.batch}
    ours, theirs = both(tmp_path, None, None, partial(given, recipe), partial(model_of, recipe), **settings, **size)
    _same_losses(losses(ours), losses(theirs))
    _same_weights(weights(ours), weights(theirs))
    trainers: tuple[Any, ...] = (ours, theirs)
    own, other = (tree_flatten(trainer.predict(trainer.eval_dataset).predictions)[0] for trainer in trainers)
    assert len(own) == len(other) > 0
    for mine, others in zip(own, other, strict=True):
        np.testing.assert_allclose(mine, others, atol=_WITHIN, rtol=0, err_msg="predictions")
    if recipe.is_plain:
        _profits(ours)


def _same_losses(own: list[float], other: list[float]) -> None:
    assert len(own) == len(other) > 20
    assert all(map(math.isfinite, other)), "the model itself is at fault"
    apart = [abs(one - another) / max(1.0, abs(another)) for one, another in zip(own, other, strict=True)]
    first = next((step for step, difference in enumerate(apart, 1) if not difference <= _WITHIN), None)
    assert first is None, f"losses differ from entry {first} of the log on, by up to {max(apart):.1e}"


def _same_weights(own: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert own.keys() == other.keys()
    apart = {name: float((own[name] - other[name]).abs().max()) for name in own}
    wrong = {name: difference for name, difference in apart.items() if not difference <= _WITHIN}
    worst = max(wrong, key=wrong.__getitem__, default="")
    assert not wrong, f"{len(wrong)} of {len(own)} weights differ, {worst} by {wrong[worst]:.1e}"


def _profits(trainer: fl.Trainer) -> None:
    """What is frozen was computed once for each text."""
    report = trainer.engine_report
    assert report is not None
    assert report.check.boundary is not None, "an ordinary model whose frozen part is computed in each step"
    assert report.rows >= len({tuple(row["input_ids"]) for row in trainer.train_dataset})  # type: ignore[union-attr]
