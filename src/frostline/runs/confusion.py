"""Which labels are taken for which, counted at each evaluation of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from frostline.data.labels import SINGLE, LabelSchema
from frostline.runs.metrics import first_output, metrics_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import EvalPrediction

CONFUSION = "confusion"
_MOST_LABELS = 30  # more make a table that nobody reads


def metrics_and_confusion(schema: LabelSchema) -> Callable[[EvalPrediction], dict[str, Any]]:
    """Make the ``compute_metrics`` of a run's Trainer.

    Args:
        schema: What the labels are.

    Returns:
        What `metrics_for` makes; for a single label of few, with ``confusion`` beside the metrics: per true label, how
        many of its rows were given which label, as lists (num_labels, num_labels).
    """
    compute = metrics_for(schema.problem_type)
    if schema.problem_type != SINGLE or schema.num_labels > _MOST_LABELS:
        return compute

    def compute_both(prediction: EvalPrediction) -> dict[str, Any]:
        true, given = np.asarray(prediction.label_ids), first_output(prediction.predictions).argmax(axis=-1)
        counts = np.zeros((schema.num_labels, schema.num_labels), dtype=np.int64)
        np.add.at(counts, (true, given), 1)
        return {**compute(prediction), CONFUSION: counts.tolist()}

    return compute_both
