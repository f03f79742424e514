from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from frostline.data.labels import MULTI, REGRESSION, SINGLE, LabelSchema
from frostline.runs.baseline import Baseline


def test_of_single_labels_it_is_the_most_frequent() -> None:
    found = Baseline.of([2, 0, 2, 2], LabelSchema(SINGLE, ("a", "b", "c")))
    assert found.answer == "'c'"
    assert found.metrics["accuracy"] == 0.75
    assert found.metrics["macro_f1"] == pytest.approx((0 + 2 * 0.75 / 1.75) / 2)  # over the labels that are there
    shares = torch.tensor([0.25, 1e-30, 0.75]).log().expand(4, 3)
    loss = torch.nn.functional.cross_entropy(shares, torch.tensor([2, 0, 2, 2]))
    assert found.metrics["loss"] == pytest.approx(float(loss))
    assert found.to_dict() == {"answer": "'c'"} | found.metrics


@pytest.mark.parametrize(
    ("labels", "answer", "accuracy"),
    [([[1, 0], [1, 0], [1, 1], [0, 0]], "'a'", 0.5), ([[1, 0], [0, 0], [0, 0], [0, 0]], "no label", 0.75)],
)
def test_of_several_labels_it_is_those_that_most_rows_have(
    labels: list[list[int]], answer: str, accuracy: float
) -> None:
    found = Baseline.of(labels, LabelSchema(MULTI, ("a", "b")))
    assert (found.answer, found.metrics["accuracy"]) == (answer, accuracy)
    given = torch.tensor(labels, dtype=torch.float64)
    shares = given.mean(0).clamp(1e-12, 1 - 1e-12).expand(4, 2)
    assert found.metrics["loss"] == pytest.approx(float(torch.nn.functional.binary_cross_entropy(shares, given)))


@pytest.mark.parametrize("outputs", [1, 2])
def test_of_values_it_is_the_mean(outputs: int) -> None:
    values = np.random.default_rng(0).normal(3, 2, (50, outputs))
    schema = LabelSchema(REGRESSION, ("a", "b") if outputs == 2 else ())
    found = Baseline.of(values if outputs == 2 else values[:, 0], schema)
    assert found.answer == "the mean"
    assert found.metrics["rmse"] == pytest.approx(float(values.std(axis=0).mean()))
    assert found.metrics["loss"] == pytest.approx(float(values.var(axis=0).mean()))
    assert found.metrics["pearson"] == 0


def test_one_label_alone_has_no_loss() -> None:
    found = Baseline.of([1, 1], LabelSchema(SINGLE, ("a", "b")))
    assert (found.metrics["accuracy"], found.metrics["loss"]) == (1, 0)
    assert math.isfinite(found.metrics["macro_f1"])
