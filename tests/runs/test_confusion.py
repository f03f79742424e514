from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix
from transformers import EvalPrediction

from frostline.data.labels import MULTI, SINGLE, LabelSchema
from frostline.runs.confusion import metrics_and_tables
from frostline.runs.metrics import metrics_for
from frostline.runs.most_wrong import most_wrong

LABELS = ("a", "b", "c")


@pytest.mark.parametrize("logits", [np.eye(3)[[0, 1, 1, 2]], np.random.default_rng(0).normal(size=(40, 3))])
def test_it_is_scikit_learns(logits: np.ndarray) -> None:
    true = np.random.default_rng(1).integers(0, 3, len(logits))
    prediction = EvalPrediction(logits, true)
    found = metrics_and_tables(LabelSchema(SINGLE, LABELS))(prediction)
    assert found.pop("most_wrong") == most_wrong(logits, true)
    assert found.pop("confusion") == confusion_matrix(true, logits.argmax(-1), labels=[0, 1, 2]).tolist()
    assert found == metrics_for(SINGLE)(prediction)


def test_only_for_a_single_label_of_few() -> None:
    several = EvalPrediction(np.zeros((2, 3)), np.ones((2, 3)))
    assert "confusion" not in metrics_and_tables(LabelSchema(MULTI, LABELS))(several)
    many = LabelSchema(SINGLE, tuple(map(str, range(31))))
    assert "confusion" not in metrics_and_tables(many)(EvalPrediction(np.zeros((2, 31)), np.array([0, 1])))
