"""Which labels are taken for which, and which rows for what, noted at each evaluation of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from frostline.data.labels import SINGLE, LabelSchema
from frostline.runs.metrics import first_output, metrics_for
from frostline.runs.most_wrong import MOST_WRONG, most_wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import EvalPrediction

CONFUSION = "confusion"
_MOST_LABELS = 30  # more make a table that nobody reads


def metrics_and_tables(schema: LabelSchema) -> Callable[[EvalPrediction], dict[str, Any]]:
    """Make the ``compute_metrics`` of a run's Trainer.

    Args:
        schema: What the labels are.

    Returns:
        What `metrics_for` makes; for a single label with ``most_wrong`` beside the metrics (see there), and where
        labels are few with ``confusion``: per true label, how many of its rows were given which label, as lists
        (num_labels, num_labels).
    """
    compute = metrics_for(schema.problem_type)
    if schema.problem_type != SINGLE:
        return compute

    def compute_all(prediction: EvalPrediction) -> dict[str, Any]:
        true, logits = np.asarray(prediction.label_ids), first_output(prediction.predictions)
        found = {**compute(prediction), MOST_WRONG: most_wrong(logits, true)}
        if schema.num_labels <= _MOST_LABELS:
            counts = np.zeros((schema.num_labels, schema.num_labels), dtype=np.int64)
            np.add.at(counts, (true, logits.argmax(axis=-1)), 1)
            found[CONFUSION] = counts.tolist()
        return found

    return compute_all
