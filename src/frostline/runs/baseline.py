"""What a model reaches that gives every row the same answer: the line that a trained one has to pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from frostline.data.labels import MULTI, SINGLE, LabelSchema
from frostline.data.messages import listed, quoted
from frostline.runs.metrics import THRESHOLD, metrics_for


@dataclass(frozen=True, slots=True)
class Baseline:
    """The best that one answer for all rows can do.

    Attributes:
        answer: The answer in words: ``'positive'``, ``no label``, ``the mean``.
        metrics: Its metrics under the names of an evaluation's, with the ``loss`` of always giving the shares of the
            labels as probabilities (their entropy, in nats), or the mean as the value.
    """

    answer: str
    metrics: dict[str, float]

    @classmethod
    def of(cls, labels: ArrayLike, schema: LabelSchema) -> Baseline:
        """Measure it on labels.

        Args:
            labels: As `LabelSchema.encode` gives them: (rows,) or (rows, num_labels).
            schema: What they are.
        """
        from transformers import EvalPrediction

        given = np.asarray(labels, dtype=np.int64 if schema.problem_type == SINGLE else np.float64)
        if schema.problem_type == SINGLE:
            logits = np.bincount(given, minlength=schema.num_labels) / len(given)
            answer, loss = quoted(schema.names[int(logits.argmax())]), _entropy(logits)
        elif schema.problem_type == MULTI:
            shares = given.mean(axis=0)
            logits = np.where(shares >= THRESHOLD, 1.0, -1.0)
            usual = [schema.names[label] for label in np.flatnonzero(logits > 0)]
            answer = listed(usual) if usual else "no label"
            loss = _entropy(np.stack([shares, 1 - shares]))
        else:
            logits = given.reshape(len(given), -1).mean(axis=0)
            answer, loss = "the mean", float(np.mean((given.reshape(len(given), -1) - logits) ** 2))
        every_row = np.broadcast_to(logits, (len(given), schema.num_labels))
        metrics = metrics_for(schema.problem_type)(EvalPrediction(every_row, given))
        return cls(answer, metrics | {"loss": loss})

    def to_dict(self) -> dict[str, Any]:
        """The baseline as plain values."""
        return {"answer": self.answer} | self.metrics


def _entropy(shares: NDArray[Any]) -> float:
    """Entropy in nats of shares along the first axis, averaged over what is behind it."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(shares * logs).sum(axis=0).mean())
