from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from transformers import EvalPrediction

from frostline.data.labels import MULTI, REGRESSION, SINGLE, ProblemType
from frostline.runs.metrics import best_metric, first_output, metrics_for, probabilities


def measured(problem: ProblemType, predictions: Any, labels: Any) -> dict[str, float]:
    return metrics_for(problem)(EvalPrediction(predictions, np.asarray(labels)))


def test_single_label() -> None:
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0]])
    found = measured(SINGLE, logits, [0, 1, 2, 2])
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_multi_label() -> None:
    logits = np.array([[1.0, -1.0], [0.0, 2.0], [-3.0, -3.0]])  # at 0 the probability is just 0.5, which counts
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    found = measured(MULTI, logits, labels)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert found["macro_f1"] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_regression(shape: tuple[int, ...]) -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0]).reshape(shape)
    found = measured(REGRESSION, values, [1.0, 2.0, 3.0, 6.0])
    assert found["rmse"] == pytest.approx(1.0)
    assert found["mae"] == pytest.approx(0.5)
    assert found["pearson"] == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 2, 3, 6])[0, 1])


def test_regression_of_several_values_is_averaged() -> None:
    values = np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 3.0]])
    found = measured(REGRESSION, values, np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]))
    assert found["pearson"] == pytest.approx(0.0)
    assert found["mae"] == pytest.approx((0 + 4 / 3) / 2)


@pytest.mark.parametrize("values", [[2.0, 2.0], [1.0, 3.0]])
def test_a_constant_correlates_with_nothing(values: list[float]) -> None:
    assert measured(REGRESSION, np.array(values), [5.0, 5.0])["pearson"] == 0.0


def test_one_row() -> None:
    assert measured(REGRESSION, np.array([[2.0]]), [3.0]) == {"rmse": 1.0, "mae": 1.0, "pearson": 0.0}
    assert measured(SINGLE, np.array([[2.0, 3.0]]), [1])["accuracy"] == 1.0


def test_a_run_that_diverged_is_no_traceback() -> None:
    found = measured(REGRESSION, np.array([math.nan, 1.0]), [1.0, 2.0])
    assert found.keys() == {"rmse", "mae", "pearson"}
    assert all(math.isnan(value) for value in found.values())


def test_of_several_outputs_the_first_are_the_logits() -> None:
    logits = np.array([[0.0, 1.0]])
    assert first_output((logits, np.zeros((1, 7, 16)))) is logits
    assert measured(SINGLE, (logits, np.zeros((1, 7, 16))), [1])["accuracy"] == 1.0


def test_probabilities() -> None:
    logits = np.array([[0.0, np.log(3.0)], [1000.0, -1000.0]], dtype=np.float32)
    single = probabilities(logits, SINGLE)
    assert single == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert single.sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-12)
    assert probabilities(logits, MULTI) == pytest.approx(np.array([[0.5, 0.75], [1.0, 0.0]]))
    assert np.array_equal(probabilities(logits, REGRESSION), logits)
    assert single.dtype == np.float64


def test_what_decides_which_model_is_best() -> None:
    assert best_metric(REGRESSION) == ("rmse", False)
    assert best_metric(SINGLE) == best_metric(MULTI) == ("macro_f1", True)
