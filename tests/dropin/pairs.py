"""Training by both Trainers, compared curve by curve: losses, weights and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten

from tests.training.beside import assert_alike, both

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import transformers

    import frostline as fl


def compared(
    tmp_path: Path,
    make: Callable[[], Any],
    mixin: type | None = None,
    given: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
    *,
    real: bool = False,
    **changes: Any,
) -> fl.Trainer:
    """Train by both Trainers, predict, and compare; returns ours."""
    ours, theirs = both(tmp_path, mixin, None, given, make=make, **changes)
    assert_alike(ours, theirs)
    assert_same_predictions(ours, theirs, real=real)
    return ours


def assert_same_predictions(ours: transformers.Trainer, theirs: transformers.Trainer, *, real: bool = False) -> None:
    """The same arrays of the held-out rows from ``predict``, within 1e-4; of real tokens only if that is said."""
    trainers: tuple[Any, ...] = (ours, theirs)
    own, other = map(_predicted, trainers)
    assert [array.shape for array in own] == [array.shape for array in other]
    assert own
    lengths = np.array([len(row["input_ids"]) for row in trainers[0].eval_dataset]) if real else None
    for one, another in zip(own, other, strict=True):
        if lengths is not None and one.ndim == 3:
            there = np.arange(one.shape[1]) < lengths[:, None]
            np.testing.assert_allclose(one[there], another[there], atol=1e-4, rtol=0)
            continue
        np.testing.assert_allclose(one, another, atol=1e-4, rtol=0)


def assert_profits(trainer: fl.Trainer, boundary: str | None = "layer 2") -> None:
    """What lies beneath a unit, or beneath whichever, was computed once: the 40 rows of the training set at least."""
    report = trainer.engine_report
    assert report is not None
    assert report.check.boundary is not None
    assert boundary is None or report.check.boundary == boundary
    assert report.rows >= 40


def _predicted(trainer: Any) -> list[Any]:
    torch.manual_seed(0)  # of a collator that draws
    arrays: list[Any] = tree_flatten(trainer.predict(trainer.eval_dataset).predictions)[0]
    return arrays
