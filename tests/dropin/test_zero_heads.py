"""Heads and branches that begin at zero: before the first step their results say nothing of what lies beneath."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.dropin import rows
from tests.dropin.pairs import assert_profits, compared
from tests.dropin.trunks import Classifier, Depth, mean_of

if TYPE_CHECKING:
    from pathlib import Path


class Zero(Classifier):
    """Its linear head begins at zero."""

    def __init__(self, frozen: Depth = "lower", width: int = 16) -> None:
        super().__init__(frozen, width)
        self.head.requires_grad_()
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class Mean(Zero):
    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return mean_of(self.bert(ids, attention_mask=mask).last_hidden_state, mask)


class MeanOfAll(Zero):
    """Padding counts."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return hidden.mean(1)


class AtMark(Zero):
    """It reads the token of a mark, which for most texts is the first."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return hidden[torch.arange(len(ids)), (ids == 50).int().argmax(1)]


class Deep(MeanOfAll):
    """Two layers, the second of which begins at zero, so that nothing reaches the first."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.head = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), self.head)


class Gate(Classifier):
    """A branch that reads all tokens, shut by a gate that begins at zero."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.gate = nn.Parameter(torch.zeros(16))
        self.branch: Any = nn.Linear(16, 16)

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        added: Tensor = self.gate * self.branch(mean_of(hidden, mask))
        return hidden[:, 0] + added


class TwoGates(Gate):
    """The branch itself ends in zeros, so that neither moves in the first step but the branch's end."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.branch = nn.Linear(16, 16)
        nn.init.zeros_(self.branch.weight)
        nn.init.constant_(self.branch.bias, 0.1)


class Adapter(nn.Module):
    """A bottleneck behind a layer, whose second map begins at zero."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor, *arguments: Any, **options: Any) -> Any:
        hidden = self.layer(hidden, *arguments, **options)
        return hidden + self.up(self.down(hidden).relu())


class Adapted(Classifier):
    """Adapters behind the upper layers; the layers themselves are frozen."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__("trunk")
        layers = self.bert.encoder.layer
        for place in range(0 if frozen == "nothing" else 2, 4):
            layers[place] = Adapter(layers[place])


class AdaptedOfAll(Adapted):
    """The mean of all positions is read."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return hidden.mean(1)


class Scattered(Zero):
    """The states of all positions, one beside the other, cut or filled to 24."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen, width=24 * 16)

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state
        return nn.functional.pad(hidden, (0, 0, 0, 24 - hidden.shape[1])).flatten(1)


def marked(count: int, seed: int) -> list[rows.Row]:
    """Texts with the token 50 at their start, but for every tenth, which has it in the middle."""
    texts = [[4 if token == 50 else token for token in text] for text in rows.texts(count, 5, 24, seed=seed)]
    for index, text in enumerate(texts):
        text[len(text) // 2 if index % 10 == 3 else 0] = 50
    return rows.labelled(rows.encoded(texts))


PLAIN: tuple[type[Classifier], ...] = (Zero, Mean)
OTHERS: tuple[type[Classifier], ...] = (MeanOfAll, AtMark, Deep, Gate, TwoGates, Adapted, AdaptedOfAll, Scattered)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_zero_head_on_a_plain_pooling(tmp_path: Path, kind: type[Classifier]) -> None:
    assert_profits(compared(tmp_path, kind))


@pytest.mark.parametrize("kind", OTHERS)
def test_zeros_that_hide_what_lies_beneath(tmp_path: Path, kind: type[Classifier]) -> None:
    compared(tmp_path, kind, given=rows.given(marked), learning_rate=1e-2)


@pytest.mark.parametrize(("kind", "frozen"), [(AtMark, "nothing"), (AtMark, "trunk"), (TwoGates, "nothing")])
def test_zeros_above_other_depths(tmp_path: Path, kind: type[Classifier], frozen: Depth) -> None:
    compared(tmp_path, partial(kind, frozen), given=rows.given(marked), learning_rate=1e-2)
