"""Classifiers of one's own on a tiny BERT, as projects write them: what the tests of patterns share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional
from transformers.utils.generic import ModelOutput

from tests.training import tokens

Depth = Literal["nothing", "lower", "trunk"]


def bert_classifier(frozen: Depth = "lower", **changes: Any) -> Any:
    """transformers' classifier on four layers: nothing frozen, the embeddings and two layers, or all but the head."""
    model: Any = tokens.model(**changes)
    trunk = model.bert
    parts = {"nothing": [], "lower": [trunk.embeddings, *trunk.encoder.layer[:2]], "trunk": [trunk]}
    for part in parts[frozen]:
        part.requires_grad_(requires_grad=False)
    return model


def bert(frozen: Depth = "lower", **changes: Any) -> Any:
    """The BERT alone."""
    return bert_classifier(frozen, **changes).bert


def mean_of(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of the real tokens: (rows, width) of (rows, length, width)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


@dataclass
class Answer(ModelOutput):
    """What a classifier of one's own gives out."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden: Tensor | None = None
    others: Tensor | None = None


class Classifier(nn.Module):
    """A trunk, a way to pool, and a linear head; patterns change one of its methods."""

    def __init__(self, frozen: Depth = "lower", width: int = 16, **changes: Any) -> None:
        super().__init__()
        self.bert = bert(frozen, **changes)
        self.head: Any = nn.Linear(width, 2)

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        """(rows, width) of texts."""
        hidden: Tensor = self.bert(ids, attention_mask=mask, **more).last_hidden_state
        return hidden[:, 0]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        """The usual outputs."""
        return self.answer(self.pooled(input_ids, attention_mask), labels)

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        """Logits, and the loss where there are labels."""
        logits = self.head(pooled)
        loss = functional.cross_entropy(logits, labels) if labels is not None else None
        return Answer(loss=loss, logits=logits, **more)
