"""Which rows of an evaluation the model got most wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_WRONG = "most_wrong"
_ROWS = 12


def most_wrong(logits: NDArray[Any], labels: NDArray[Any]) -> list[list[float]]:
    """List the rows that were given a wrong label, those of the highest loss first.

    Args:
        logits: Of shape (rows, num_labels), any float dtype.
        labels: The true labels, int, (rows,).

    Returns:
        Of the first few: the row's place, its label, the label that it was given, and its cross entropy.
    """
    from scipy.special import log_softmax

    given = logits.argmax(axis=-1)
    losses = -log_softmax(logits.astype(np.float64), axis=-1)[np.arange(len(labels)), labels]
    wrong = np.flatnonzero((given != labels) & np.isfinite(losses))
    worst = wrong[np.argsort(-losses[wrong], kind="stable")[:_ROWS]]
    return [[int(row), int(labels[row]), int(given[row]), round(float(losses[row]), 4)] for row in worst]
