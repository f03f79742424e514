"""How good predictions are: the figures for each problem type, from scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from frostline.data.labels import MULTI, REGRESSION, ProblemType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from transformers import EvalPrediction

_TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
THRESHOLD = 0.5  # a label of several counts as given from this probability on


def evaluated(logged: Mapping[str, Any]) -> dict[str, float]:
    """Take from what a Trainer logs of an evaluation its metrics, without ``eval_``, without times and tables."""
    named = {name.removeprefix("eval_"): value for name, value in logged.items() if name.startswith("eval_")}
    return {name: float(value) for name, value in named.items() if name not in _TIMES and not isinstance(value, list)}


def best_metric(problem_type: ProblemType) -> tuple[str, bool]:
    """The metric that decides which model is the best one, and whether more of it is better."""
    return ("rmse", False) if problem_type == REGRESSION else ("macro_f1", True)


def metrics_for(problem_type: ProblemType) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the ``compute_metrics`` of a Trainer.

    Args:
        problem_type: One of transformers' problem types.

    Returns:
        A function that gives, by problem type: ``accuracy`` and ``macro_f1``; ``accuracy`` (all labels of
        a row right), ``micro_f1`` and ``macro_f1``; or ``rmse``, ``mae`` and ``pearson`` (each averaged over
        the outputs).
    """
    compute = {MULTI: _multi_label, REGRESSION: _regression}.get(problem_type, _single_label)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return compute(first_output(prediction.predictions), np.asarray(prediction.label_ids))

    return compute_metrics


def first_output(predictions: Any) -> NDArray[Any]:
    """The logits among a model's outputs (an encoder-decoder gives more): (rows, num_labels)."""
    return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)


def probabilities(logits: NDArray[Any], problem_type: ProblemType) -> NDArray[Any]:
    """Turn logits into probabilities.

    Args:
        logits: Of shape (rows, num_labels), any float dtype.
        problem_type: One of transformers' problem types.

    Returns:
        float64, same shape: softmax per row, sigmoid per label, or the values themselves for a regression.
    """
    from scipy.special import expit, softmax

    values = logits.astype(np.float64)
    if problem_type == REGRESSION:
        return values
    result: NDArray[Any] = expit(values) if problem_type == MULTI else softmax(values, axis=-1)
    return result


def _single_label(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    predicted = logits.argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def _multi_label(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    given = labels.astype(int)
    predicted = (probabilities(logits, MULTI) >= THRESHOLD).astype(int)
    return {
        "accuracy": float(accuracy_score(given, predicted)),
        "micro_f1": float(f1_score(given, predicted, average="micro", zero_division=0)),
        "macro_f1": float(f1_score(given, predicted, average="macro", zero_division=0)),
    }


def _regression(values: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    predicted = values.reshape(len(labels), -1)
    given = labels.reshape(len(labels), -1)
    if not np.isfinite(predicted).all():  # the run diverged; scikit-learn would raise
        return dict.fromkeys(("rmse", "mae", "pearson"), float("nan"))
    constant = (np.ptp(predicted, axis=0) == 0) | (np.ptp(given, axis=0) == 0)
    correlations = [
        0.0 if still else float(np.corrcoef(own, true)[0, 1])
        for own, true, still in zip(predicted.T, given.T, constant, strict=True)
    ]
    return {
        "rmse": float(root_mean_squared_error(given, predicted)),
        "mae": float(mean_absolute_error(given, predicted)),
        "pearson": float(np.mean(correlations)),
    }
