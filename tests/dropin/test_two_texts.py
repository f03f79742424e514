"""Two texts in one forward, each with a mask of its own: bi-encoders as projects write them."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.dropin import rows
from tests.dropin.pairs import compared
from tests.dropin.trunks import Answer, Classifier, Depth, bert, mean_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class BiEncoder(Classifier):
    """One trunk, called once per text."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen, width=48)

    def vectors(self, ids: Tensor, mask: Tensor, ids_b: Tensor, mask_b: Tensor) -> tuple[Tensor, Tensor]:
        return self.pooled(ids, mask), self.pooled(ids_b, mask_b)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        input_ids_b: Tensor,
        attention_mask_b: Tensor,
        labels: Tensor | None = None,
    ) -> Any:
        one, other = self.vectors(input_ids, attention_mask, input_ids_b, attention_mask_b)
        return self.answer(torch.cat([one, other, (one - other).abs()], dim=-1), labels)


class Mean(BiEncoder):
    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        return mean_of(self.bert(ids, attention_mask=mask).last_hidden_state, mask)


class TwoTowers(BiEncoder):
    """A trunk per text, the first one frozen as a whole."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.bert.requires_grad_(requires_grad=False)
        self.bert_b = bert(frozen)

    def vectors(self, ids: Tensor, mask: Tensor, ids_b: Tensor, mask_b: Tensor) -> tuple[Tensor, Tensor]:
        return self.pooled(ids, mask), self.bert_b(ids_b, attention_mask=mask_b).last_hidden_state[:, 0]


class Together(BiEncoder):
    """Both texts as one batch of the trunk, padded to the longer of the two."""

    def vectors(self, ids: Tensor, mask: Tensor, ids_b: Tensor, mask_b: Tensor) -> tuple[Tensor, Tensor]:
        width = max(ids.shape[1], ids_b.shape[1])
        both = [
            torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in pair])
            for pair in ((ids, ids_b), (mask, mask_b))
        ]
        one, other = self.pooled(*both).chunk(2)
        return one, other


class InBatch(Mean):
    """The other rows' texts are what each text is told apart from."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        one, other = functional.normalize(pooled[:, :16], dim=-1), functional.normalize(pooled[:, 16:32], dim=-1)
        scores = one @ other.T / self.temperature
        loss = functional.cross_entropy(scores, torch.arange(len(scores)))
        return Answer(loss=loss, logits=scores.diagonal().unsqueeze(-1))


class Cosine(BiEncoder):
    def answer(self, pooled: Tensor, labels: Tensor | None, **more: Tensor) -> Any:
        near = functional.cosine_similarity(self.head(pooled), pooled[:, 16:18])
        loss = None if labels is None else functional.mse_loss(near, labels.to(near.dtype))
        return Answer(loss=loss, logits=near)


class Cross(BiEncoder):
    """The second text looks back at the tokens of the first."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.look = nn.MultiheadAttention(16, 2, batch_first=True)

    def vectors(self, ids: Tensor, mask: Tensor, ids_b: Tensor, mask_b: Tensor) -> tuple[Tensor, Tensor]:
        one = self.bert(ids, attention_mask=mask).last_hidden_state
        other = self.bert(ids_b, attention_mask=mask_b).last_hidden_state
        seen, _ = self.look(other, one, one, key_padding_mask=mask == 0)
        return one[:, 0], mean_of(seen, mask_b)


def pairs(a: tuple[int, int], b: tuple[int, int], count: int, seed: int) -> list[rows.Row]:
    first = rows.texts(count, *a, seed=seed)
    second = rows.texts(count, *b, seed=seed + 10)
    return rows.labelled(rows.joined(rows.encoded(first), rows.encoded(second, "_b")))


def alike_at_first(count: int, seed: int) -> list[rows.Row]:
    """The first text is always the same; the second ones differ behind its length, and by their end in length."""
    first = [[1, 7, 2]] * count
    second = [[1, 8, 9, *text] for text in rows.texts(count, 3, 12, seed)]
    return rows.labelled(rows.joined(rows.encoded(first), rows.encoded(second, "_b")))


FIXED = partial(rows.padded, width=24)
TEXTS: dict[str, dict[str, Any]] = {
    "the second longer": rows.given(partial(pairs, (3, 8), (10, 24))),
    "the second shorter": rows.given(partial(pairs, (10, 24), (3, 8))),
    "equal widths": rows.given(partial(pairs, (3, 12), (6, 24)), FIXED),
    "alike in the length of the first": rows.given(alike_at_first),
    "alike in the length of the first, equal widths": rows.given(alike_at_first, FIXED),
}


@pytest.mark.parametrize(
    ("case", "frozen"),
    [*((case, "lower") for case in TEXTS), *product(list(TEXTS)[2:4], ["nothing", "trunk"])],
)
def test_two_texts(tmp_path: Path, case: str, frozen: Depth) -> None:
    compared(tmp_path, partial(BiEncoder, frozen), given=TEXTS[case])


@pytest.mark.parametrize(
    ("make", "case"),
    [
        *product([Mean, TwoTowers, Together, InBatch, Cosine, Cross], ["equal widths"]),
        (Mean, "the second longer"),
        (TwoTowers, "the second longer"),
    ],
)
def test_ways_to_bring_them_together(tmp_path: Path, make: Callable[[], Any], case: str) -> None:
    compared(tmp_path, make, given=TEXTS[case])


class Triplet(Mean):
    """An anchor, a text that is near, and one that is far."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        near_ids: Tensor,
        near_mask: Tensor,
        far_ids: Tensor,
        far_mask: Tensor,
        labels: Tensor | None = None,
    ) -> Any:
        given = ((input_ids, attention_mask), (near_ids, near_mask), (far_ids, far_mask))
        anchor, near, far = (self.pooled(ids, mask) for ids, mask in given)
        loss = functional.triplet_margin_loss(anchor, near, far, margin=5.0)
        return Answer(loss=loss, logits=(anchor - near).norm(dim=-1) - (anchor - far).norm(dim=-1))


def triplets(count: int, seed: int) -> list[rows.Row]:
    names = {"": (4, 10), "near": (3, 20), "far": (5, 24)}
    columns = []
    for place, (name, lengths) in enumerate(names.items()):
        ids = rows.texts(count, *lengths, seed=seed + 10 * place)
        ids_name, mask_name = (f"{name}_ids", f"{name}_mask") if name else ("input_ids", "attention_mask")
        columns.append([{ids_name: text, mask_name: [1] * len(text)} for text in ids])
    return rows.labelled(rows.joined(*columns))


def test_three_texts(tmp_path: Path) -> None:
    compared(tmp_path, Triplet, given=rows.given(triplets))


class Named(Classifier):
    """Texts under names that nothing else has."""

    def forward(self, left: Tensor, left_mask: Tensor, right: Tensor, right_mask: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
        return self.answer(self.pooled(left, left_mask) - self.pooled(right, right_mask), labels)


def test_texts_under_other_names(tmp_path: Path) -> None:
    def make(count: int, seed: int) -> list[rows.Row]:
        sides = [("left", (3, 9)), ("right", (6, 20))]
        columns = [
            [{side: text, f"{side}_mask": [1] * len(text)} for text in rows.texts(count, *lengths, seed=seed + place)]
            for place, (side, lengths) in enumerate(sides)
        ]
        return rows.labelled(rows.joined(*columns))

    compared(tmp_path, Named, given=rows.given(make))
