"""State that a forward keeps: it is what it is after a run without the engine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from tests.dropin.pairs import compared
from tests.dropin.trunks import Classifier, Depth
from tests.training.beside import ROWS, assert_alike, both

if TYPE_CHECKING:
    from pathlib import Path


class Counts(Classifier):
    """It counts its calls, in an attribute and in a buffer."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.calls = 0
        self.calls_by_mode = {True: 0, False: 0}
        self.count: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        self.calls += 1
        self.calls_by_mode[self.training] += 1
        self.count += 1
        return super().forward(input_ids, attention_mask, labels)


@pytest.mark.parametrize("frozen", get_args(Depth))
def test_calls_that_are_counted(tmp_path: Path, frozen: Depth) -> None:
    ours, theirs = both(tmp_path, make=partial(Counts, frozen), freeze=None, eval_strategy="epoch")
    assert_alike(ours, theirs)
    counted = []
    for trainer in (ours, theirs):
        trainer.predict(ROWS)
        model: Any = trainer.model
        counted.append((model.calls, model.calls_by_mode, int(model.count)))
    assert counted[0] == counted[1] == (19, {True: 10, False: 9}, 19)


class Anneals(Counts):
    """The count of its calls says how warm its softmax is."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        return super().answer(pooled * (1 + 1 / self.calls), labels)


class AnnealsByBuffer(Counts):
    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        return super().answer(pooled * (1 + 1 / self.count), labels)


class Queue(Classifier):
    """Vectors of earlier batches are what each text is told apart from; they are kept in a buffer."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.queue: Tensor
        self.register_buffer("queue", torch.linspace(-1, 1, 16 * 16).reshape(16, 16))

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        output = super().answer(pooled, labels)
        if output.loss is not None and self.training:
            near = functional.normalize(pooled, dim=-1) @ functional.normalize(self.queue, dim=-1).T
            output.loss = output.loss + near.logsumexp(-1).mean()
            self.keep(pooled.detach())
        return output

    def keep(self, vectors: Tensor) -> None:
        self.queue.copy_(torch.cat([vectors, self.queue])[:16])


class QueueElsewhere(Queue):
    """They are kept in an attribute, which a new tensor takes the place of."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.kept = [torch.ones(1, 16)]

    def keep(self, vectors: Tensor) -> None:
        self.kept = [*self.kept[-2:], vectors]
        self.queue = torch.cat(self.kept)


class QueueInAList(Queue):
    """They are appended to a list."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.kept: list[Tensor] = []

    def keep(self, vectors: Tensor) -> None:
        self.kept.append(vectors)
        self.queue = torch.cat(self.kept[-3:])


class Centred(Classifier):
    """A moving mean is taken off each vector."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(16))

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        if self.training:
            self.mean.lerp_(pooled.detach().mean(0), 0.1)
        return super().answer(pooled - self.mean, labels)


class Normed(Classifier):
    """Batch normalisation before the head."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.norm = nn.BatchNorm1d(16)

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        return super().answer(self.norm(pooled), labels)


class Bounded(Classifier):
    """A head of spectral norm 1, which is brought nearer at each call."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.head = spectral_norm(self.head)


class Prototypes(Classifier):
    """Each label has a moving mean of its vectors; the logits are how near they are."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.prototypes: Tensor
        self.register_buffer("prototypes", torch.linspace(-1, 1, 32).reshape(2, 16))

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        if self.training and labels is not None:
            for label in (0, 1):
                if not bool((labels == label).any()):
                    continue
                self.prototypes[label] = 0.9 * self.prototypes[label] + 0.1 * pooled[labels == label].mean(0).detach()
        output = super().answer(pooled, labels)
        near = pooled @ self.prototypes.T
        output.logits = output.logits + near
        output.loss = functional.cross_entropy(output.logits, labels) if labels is not None else None
        return output


class Remembers(Classifier):
    """The vector of the last batch is a part of this one's."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.last: Tensor | None = None

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        pooled = super().pooled(ids, mask)
        last, self.last = self.last, pooled.detach().mean(0)
        return pooled if last is None else pooled + 0.5 * last


KINDS: tuple[type[Classifier], ...] = (Anneals, AnnealsByBuffer, Queue, QueueElsewhere, QueueInAList, Centred, Normed)
MORE_KINDS: tuple[type[Classifier], ...] = (Bounded, Prototypes, Remembers)


@pytest.mark.parametrize("kind", [*KINDS, *MORE_KINDS])
def test_a_forward_that_keeps_something(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, kind, eval_strategy="epoch")


@pytest.mark.parametrize("frozen", ["nothing", "trunk"])
@pytest.mark.parametrize("kind", [Anneals, Queue, QueueInAList])
def test_one_above_other_depths(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen))
