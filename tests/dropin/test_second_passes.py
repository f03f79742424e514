"""Forwards that run the trunk more than once, or read one pooled vector more than once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.dropin.pairs import assert_profits, compared
from tests.dropin.trunks import Answer, Classifier, Depth, mean_of
from tests.training.beside import OwnLoss

if TYPE_CHECKING:
    from pathlib import Path


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """How far two sets of logits lie apart, either way."""
    ours, theirs = one.log_softmax(-1), other.log_softmax(-1)
    there = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return there + functional.kl_div(theirs, ours, reduction="batchmean", log_target=True)


# The trunk twice


class RDrop(Classifier):
    """While it trains, each text is read twice, and both readings are to agree."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        output: Answer = self.answer(self.pooled(input_ids, attention_mask), labels)
        if self.training and labels is not None:
            again: Answer = self.answer(self.again(input_ids, attention_mask), labels)
            assert again.logits is not None
            assert output.logits is not None
            apart = divergence(output.logits, again.logits)
            output.loss = (output.loss + again.loss) / 2 + apart  # type: ignore[operator]
        return output

    def again(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The second reading, which is another one under dropout only."""
        return self.pooled(ids, mask)


class RDropOfOtherTexts(RDrop):
    """Every third token is another one in the second reading."""

    def again(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.pooled(ids.where(torch.arange(ids.shape[1]) % 3 != 1, 5), mask)


class RDropOfHalves(RDrop):
    """The second reading is of the first half."""

    def again(self, ids: Tensor, mask: Tensor) -> Tensor:
        half = ids.shape[1] // 2 + 1
        return self.pooled(ids[:, :half], mask[:, :half])


class SimCSE(Classifier):
    """While it trains, the second reading of a text is what the other texts' are told from."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        one = self.pooled(input_ids, attention_mask)
        output: Answer = self.answer(one, labels)
        if self.training:
            other = self.pooled(input_ids.where(input_ids != 2, 3), attention_mask)
            near = functional.cosine_similarity(one[:, None], other[None], dim=-1) / 0.5
            output.loss = output.loss + functional.cross_entropy(near, torch.arange(len(near)))  # type: ignore[operator]
        return output


class Stacked(SimCSE):
    """Both readings are one batch of the trunk."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        if not self.training:
            return self.answer(self.pooled(input_ids, attention_mask), labels)
        one, other = self.pooled(input_ids.repeat(2, 1), attention_mask.repeat(2, 1)).chunk(2)
        output: Answer = self.answer(one, labels)
        near = functional.cosine_similarity(one[:, None], other[None], dim=-1) / 0.5
        output.loss = output.loss + functional.cross_entropy(near, torch.arange(len(near)))  # type: ignore[operator]
        return output


class Momentum(Classifier):
    """A second reading without gradients is what the first one is to come near."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        output: Answer = self.answer(self.pooled(input_ids, attention_mask), labels)
        with torch.no_grad():
            target = self.head(self.pooled(input_ids.flip(0), attention_mask.flip(0))).flip(0)
        if output.loss is not None:
            output.loss = output.loss + functional.mse_loss(self.head.weight.sum() + target, target * 0.5)
        return output


TWICE: tuple[type[Classifier], ...] = (RDrop, RDropOfOtherTexts, RDropOfHalves, SimCSE, Stacked, Momentum)


@pytest.mark.parametrize(
    ("kind", "frozen"),
    [
        *((kind, "lower") for kind in TWICE),
        (RDrop, "trunk"),
        (SimCSE, "trunk"),
        (RDropOfHalves, "nothing"),
        (Momentum, "nothing"),
    ],
)
def test_a_trunk_that_is_run_twice(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen), eval_strategy="epoch")


class RDropInTheLoss(OwnLoss):
    """The loss calls the model twice."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        one, other = model(**inputs), model(**inputs)
        return (one.loss + other.loss) / 2 + divergence(one.logits, other.logits), one


def test_a_model_that_the_loss_calls_twice(tmp_path: Path) -> None:
    assert_profits(compared(tmp_path, Classifier, RDropInTheLoss))


# One vector, read twice


class SecondHead(Classifier):
    """A second head on the same vector; it has a loss of its own, and is given out or not."""

    gives = False

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.second = nn.Linear(16, 1)

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        output = super().answer(pooled, labels)
        value = self.second(pooled).squeeze(-1)
        if output.loss is not None and labels is not None:
            output.loss = output.loss + functional.mse_loss(value, 2.0 * labels - 1)
        if self.gives:
            output.others = value
        return output


class SecondHeadGiven(SecondHead):
    gives = True


class GivesVector(Classifier):
    """The vector is given out beside the logits."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        return super().answer(pooled, labels, hidden=pooled)


class Contrast(Classifier):
    """The loss has a contrastive term of the vector."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        output = super().answer(pooled, labels)
        if output.loss is not None and labels is not None:
            near = functional.normalize(self.project(pooled), dim=-1)
            same = (labels[:, None] == labels[None]).to(near.dtype)
            output.loss = output.loss + functional.binary_cross_entropy_with_logits(near @ near.T, same)
        return output

    def project(self, pooled: Tensor) -> Tensor:
        return pooled


class ContrastBehindAHead(Contrast):
    """Of what a second linear map makes of the vector."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.map = nn.Linear(16, 8)

    def project(self, pooled: Tensor) -> Tensor:
        mapped: Tensor = self.map(pooled)
        return mapped


class ContrastOfTheMean(ContrastBehindAHead):
    """The vector is the mean of all tokens."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return mean_of(self.bert(ids, attention_mask=mask).last_hidden_state, mask)


class PoolerAndFirst(Classifier):
    """The pooler's vector and the first token's state stand side by side."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen, width=32)

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        output = self.bert(ids, attention_mask=mask)
        return torch.cat([output.pooler_output, output.last_hidden_state[:, 0]], dim=-1)


class ReadTwice(Classifier):
    """The same linear head reads the vector and its negative."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        output = super().answer(pooled, labels)
        other = self.head(-pooled)
        if output.loss is not None and labels is not None:
            output.loss = output.loss + functional.cross_entropy(other, 1 - labels)
        return output


READERS: tuple[type[Classifier], ...] = (SecondHead, SecondHeadGiven, GivesVector, Contrast, ContrastBehindAHead)
MORE_READERS: tuple[type[Classifier], ...] = (ContrastOfTheMean, PoolerAndFirst, ReadTwice)


@pytest.mark.parametrize("kind", [*READERS, *MORE_READERS])
def test_a_vector_of_a_frozen_trunk_that_is_read_twice(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, partial(kind, "trunk"), eval_strategy="epoch")


@pytest.mark.parametrize("kind", [SecondHeadGiven, Contrast, ContrastOfTheMean])
def test_a_vector_that_is_read_twice(tmp_path: Path, kind: type[Classifier]) -> None:
    assert_profits(compared(tmp_path, kind))
