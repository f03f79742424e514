"""Wrappers around a trunk that pool in their own way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.dropin.pairs import assert_profits, compared
from tests.dropin.trunks import Classifier, Depth, mean_of

if TYPE_CHECKING:
    from pathlib import Path


class Mean(Classifier):
    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return mean_of(self.bert(ids, attention_mask=mask).last_hidden_state, mask)


class MeanOfAll(Classifier):
    """Counts the padding in, as careless projects do."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return hidden.mean(dim=1)


class Highest(Classifier):
    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        return hidden.masked_fill(mask.unsqueeze(-1) == 0, -1e4).amax(dim=1)  # type: ignore[no-any-return]


class Attentive(Classifier):
    """Weighs the tokens by a learned score."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.score = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        scores = self.score(hidden).masked_fill(mask.unsqueeze(-1) == 0, -1e4)
        return (scores.softmax(dim=1) * hidden).sum(dim=1)  # type: ignore[no-any-return]


class LastFour(Classifier):
    """The first token as the last four layers have it, one beside the other."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen, width=64)

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        states = self.bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        return torch.cat([state[:, 0] for state in states[-4:]], dim=-1)


class Blend(Classifier):
    """A learned blend of all layers, the mean of it."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.blend = nn.Parameter(torch.zeros(5))

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        states = torch.stack(self.bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states)
        return mean_of((self.blend.softmax(0)[:, None, None, None] * states).sum(0), mask)


class Pooler(Classifier):
    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        pooled: Tensor = self.bert(ids, attention_mask=mask).pooler_output
        return pooled


class Sequential(Classifier):
    """An LSTM on the tokens, with padding packed away."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.lstm = nn.LSTM(16, 8, batch_first=True, bidirectional=True)

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        packed = nn.utils.rnn.pack_padded_sequence(hidden, mask.sum(1), batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return torch.cat([last[0], last[1]], dim=-1)


PLAIN: tuple[type[Classifier], ...] = (Classifier, Mean, Highest, Attentive, Pooler, Sequential)
OTHERS: tuple[type[Classifier], ...] = (MeanOfAll, LastFour, Blend)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_trunk_that_is_frozen_in_part_is_computed_once(tmp_path: Path, kind: type[Classifier]) -> None:
    assert_profits(compared(tmp_path, kind))


@pytest.mark.parametrize("kind", PLAIN)
def test_a_frozen_trunk_is_computed_once(tmp_path: Path, kind: type[Classifier]) -> None:
    assert_profits(compared(tmp_path, partial(kind, "trunk")), boundary=None)


@pytest.mark.parametrize(
    ("kind", "frozen"), [*((kind, "lower") for kind in OTHERS), (MeanOfAll, "nothing"), (LastFour, "trunk")]
)
def test_other_ways_to_pool(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen))


@pytest.mark.parametrize("kind", [Classifier, Attentive])
def test_nothing_frozen(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, partial(kind, "nothing"))
