"""Forwards that draw random numbers while they train: each draw is that of a run without the engine."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.dropin.pairs import compared
from tests.dropin.trunks import Classifier, Depth, mean_of

if TYPE_CHECKING:
    from pathlib import Path


class MasksTokens(Classifier):
    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        if self.training:
            hidden = (torch.rand(ids.shape) < 0.2) & (ids > 2)
            ids = ids.masked_fill(hidden, 4)
        return super().pooled(ids, mask)


class DropsTokens(Classifier):
    """Some tokens cannot be attended to."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        if self.training:
            mask = mask * ((torch.rand(ids.shape) > 0.2) | (ids <= 2))
        return super().pooled(ids, mask)


class Jitters(Classifier):
    """Noise on what the tokens are embedded as."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        embedded = self.bert.embeddings.word_embeddings(ids)
        if self.training:
            embedded = embedded + 0.1 * torch.randn_like(embedded)
        hidden: Tensor = self.bert(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        return hidden[:, 0]


class NoisyTable(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        embedded = super().forward(ids)
        return embedded + 0.1 * torch.randn_like(embedded) if self.training else embedded


class Noisy(Classifier):
    """The noise is drawn within the module of the embeddings."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.bert.embeddings.word_embeddings.__class__ = NoisyTable


class NoisyLayer(Classifier):
    """The noise is drawn by a module without parameters, before a layer that is frozen."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.noise = Noise()
        self.bert.encoder.layer[1].register_forward_pre_hook(self.noise.before)


class Noise(nn.Module):
    def before(self, _: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self(given[0]), *given[1:])

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + 0.1 * torch.randn_like(hidden) if self.training else hidden


class NoisyVector(Classifier):
    """The noise is on the pooled vector: what lies beneath knows nothing of it."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        pooled = super().pooled(ids, mask)
        return pooled + 0.1 * torch.randn_like(pooled) if self.training else pooled


class NoisyTokens(Classifier):
    """The noise is on all tokens, behind the last layer."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        if self.training:
            hidden = hidden + 0.1 * torch.randn_like(hidden)
        return mean_of(hidden, mask)


class PoolsAtRandom(Classifier):
    """The mean or the first token, by a draw of Python's or of numpy's."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        if self.training and self.draw() < 0.5:
            return mean_of(hidden, mask)
        return hidden[:, 0]

    def draw(self) -> float:
        return random.random()  # noqa: S311 - no secret


class PoolsAtRandomByNumpy(PoolsAtRandom):
    def draw(self) -> float:
        return float(np.random.rand())  # noqa: NPY002 - as projects do


class OwnGenerator(Classifier):
    """Tokens are masked by a generator that the model keeps."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.generator = torch.Generator().manual_seed(5)

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        if self.training:
            ids = ids.masked_fill((torch.rand(ids.shape, generator=self.generator) < 0.2) & (ids > 2), 4)
        return super().pooled(ids, mask)


class SkipsLayers(Classifier):
    """Each layer that trains is left out now and then."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        layers = self.bert.encoder.layer
        for place in (2, 3):
            layers[place] = Skipping(layers[place])


class Skipping(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, *arguments: Any, **options: Any) -> Any:
        if self.training and float(torch.rand(())) < 0.5:
            return hidden
        return self.layer(hidden, *arguments, **options)


class HardDropout(Classifier):
    """A dropout without a module, on the pooled vector."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return functional.dropout(super().pooled(ids, mask), 0.3, training=self.training)


class ManySamples(Classifier):
    """The mean of the logits under five dropouts."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        dropped = [functional.dropout(pooled, 0.2, training=self.training) for _ in range(5)]
        return super().answer(torch.stack(dropped).mean(0), labels)


class Mixes(Classifier):
    """Half of a row's vector is another row's, and so is half of its label."""

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        if labels is None or not self.training:
            return super().answer(pooled, labels)
        order, share = torch.randperm(len(pooled)), float(np.random.beta(0.4, 0.4))  # noqa: NPY002 - as projects do
        output = super().answer(share * pooled + (1 - share) * pooled[order], labels)
        other = functional.cross_entropy(output.logits, labels[order])
        output.loss = share * output.loss + (1 - share) * other
        return output


BENEATH: tuple[type[Classifier], ...] = (MasksTokens, DropsTokens, Jitters, NoisyLayer, OwnGenerator)
BEHIND: tuple[type[Classifier], ...] = (NoisyVector, NoisyTokens, PoolsAtRandom, PoolsAtRandomByNumpy, HardDropout)
MORE_BEHIND: tuple[type[Classifier], ...] = (SkipsLayers, ManySamples, Mixes)


@pytest.mark.parametrize(("kind", "frozen"), [*((kind, "lower") for kind in BENEATH), (MasksTokens, "trunk")])
def test_draws_that_what_is_frozen_depends_on(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen), eval_strategy="epoch")


@pytest.mark.parametrize("kind", [*BEHIND, *MORE_BEHIND])
def test_draws_behind_what_is_frozen(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, kind, eval_strategy="epoch")


@pytest.mark.parametrize("kind", [MasksTokens, Noisy, NoisyTokens])
def test_draws_with_nothing_frozen(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, partial(kind, "nothing"))


def test_draws_of_frozen_embeddings_that_follow_train(tmp_path: Path) -> None:
    compared(tmp_path, Noisy, frozen_mode="train")
