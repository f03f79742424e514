"""Heads that read one position of each text, which one depends on the row, the batch or the weights."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from tests.dropin import rows
from tests.dropin.pairs import assert_profits, compared
from tests.dropin.trunks import Classifier, Depth

if TYPE_CHECKING:
    from pathlib import Path


class AtPlace(Classifier):
    """It reads the position that `place` names, (rows,)."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        return hidden[torch.arange(len(ids)), self.place(hidden, ids, mask)]  # type: ignore[no-any-return]

    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """The last real token, by the mask."""
        return mask.sum(1) - 1


class AtMark(AtPlace):
    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return (ids == rows.MARK).int().argmax(1)


class AtLastById(AtPlace):
    """The last token by the number of those that are not padding, which is another one where a text has some."""

    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return (ids != 0).sum(1) - 1


class AtLargest(AtPlace):
    """The token whose state is largest in some sense, which weights decide; the first one has a start on the others."""

    start = 1.5

    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        scores = hidden[..., 0].masked_fill(mask == 0, -1e4)
        return torch.cat([scores[:, :1] + self.start, scores[:, 1:]], dim=1).argmax(1)


class AtLargestOfAll(AtLargest):
    """No token has a start."""

    start = 0.0


class AtLikeliest(AtPlace):
    """The token that a learned score points at, the score being of the first token and all others."""

    def __init__(self, frozen: Depth = "lower") -> None:
        super().__init__(frozen)
        self.point = nn.Linear(16, 16)

    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        scores: Tensor = (hidden @ self.point(hidden[:, :1]).transpose(1, 2)).squeeze(-1)
        return scores.masked_fill(mask == 0, -1e4).argmax(1)


class AtMiddle(AtPlace):
    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return mask.sum(1) // 2


class AtThird(AtPlace):
    """The same one for all, but not one at an end."""

    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return torch.full((len(ids),), 2)


class AtLastOfAll(AtPlace):
    """The last position of the batch, padding or not."""

    def place(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return torch.full((len(ids),), ids.shape[1] - 1)


class BetweenMarks(Classifier):
    """The mean of what stands behind the mark."""

    def pooled(self, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        behind = (((ids == rows.MARK).cumsum(1) > 0) * mask).unsqueeze(-1)
        return (hidden * behind).sum(1) / behind.sum(1)  # type: ignore[no-any-return]


class AtGiven(Classifier):
    """The position comes with the row."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, where: Tensor, labels: Tensor | None = None
    ) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return self.answer(hidden[torch.arange(len(where)), where], labels)


def marked(count: int, seed: int, *, inside: tuple[int, ...] = (), often: float = 0.5) -> list[rows.Row]:
    """Texts that have the mark somewhere, more often than not at the start, and the pad token where `inside` says."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    made = []
    for index, text in enumerate(rows.texts(count, 5, 24, seed)):
        place = draw.randint(1, len(text) - 1) if draw.random() > often else 0
        ids = list(text)
        if index % 10 == 3:
            for at in inside:
                ids[at] = 0
        ids[place] = rows.MARK
        row = {"input_ids": ids, "attention_mask": [1] * len(ids), "where": place}
        made.append(row | {"labels": index % 2})
    return made


def without_place(count: int, seed: int, **options: Any) -> list[rows.Row]:
    return [{name: value for name, value in row.items() if name != "where"} for row in marked(count, seed, **options)]


MARKED = rows.given(without_place)
WITH_PADS = rows.given(partial(without_place, inside=(1, 3)))
PADS_AT_THE_END = rows.given(partial(without_place, inside=(-1,)))


def test_the_last_token_by_the_mask(tmp_path: Path) -> None:
    assert_profits(compared(tmp_path, AtPlace))


def test_the_last_token_by_the_mask_under_a_frozen_trunk(tmp_path: Path) -> None:
    assert_profits(compared(tmp_path, partial(AtPlace, "trunk")), boundary=None)


CASES: dict[str, tuple[type[Classifier], dict[str, Any]]] = {
    "a mark": (AtMark, MARKED),
    "a mark, most at the start": (AtMark, rows.given(partial(without_place, often=0.9))),
    "behind a mark": (BetweenMarks, MARKED),
    "a given place": (AtGiven, rows.given(marked)),
    "a given place, most at the start": (AtGiven, rows.given(partial(marked, often=0.9))),
    "the last by ids": (AtLastById, WITH_PADS),
    "the last by the mask, with pad ids inside": (AtPlace, WITH_PADS),
    "the largest": (AtLargest, MARKED),
    "the largest of all": (AtLargestOfAll, MARKED),
    "the likeliest": (AtLikeliest, MARKED),
    "the middle": (AtMiddle, MARKED),
    "the third": (AtThird, MARKED),
    "the last of all": (AtLastOfAll, MARKED),
}


@pytest.mark.parametrize(
    ("case", "frozen"),
    [*((case, "lower") for case in CASES), ("a mark, most at the start", "trunk"), ("the last by ids", "trunk")],
)
def test_a_position(tmp_path: Path, case: str, frozen: Depth) -> None:
    kind, given = CASES[case]
    compared(tmp_path, partial(kind, frozen), given=given)


@pytest.mark.parametrize("case", ["a mark, most at the start", "the last by ids", "the largest"])
def test_a_position_with_nothing_frozen(tmp_path: Path, case: str) -> None:
    kind, given = CASES[case]
    compared(tmp_path, partial(kind, "nothing"), given=given)


def decoder() -> Any:
    """A GPT-2 that reads the last token that is not the pad token."""
    values: dict[str, Any] = {
        "n_embd": 16,
        "n_layer": 4,
        "n_head": 2,
        "vocab_size": 100,
        "n_positions": 40,
        "pad_token_id": 0,
    }
    values |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.2}
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(GPT2Config(**values, bos_token_id=1, eos_token_id=2))
    for part in (model.transformer.wte, model.transformer.wpe, *model.transformer.h[:2]):
        part.requires_grad_(requires_grad=False)
    return model


@pytest.mark.parametrize(
    "given", [MARKED, WITH_PADS, PADS_AT_THE_END], ids=["no pads", "pads inside", "pads at the end"]
)
def test_a_decoder(tmp_path: Path, given: dict[str, Any]) -> None:
    compared(tmp_path, decoder, given=given)


@pytest.mark.parametrize("size", [1, 8])
def test_a_decoder_padded_on_the_left(tmp_path: Path, size: int) -> None:
    given = MARKED | {"data_collator": partial(rows.padded, left=True)}
    compared(tmp_path, decoder, given=given, per_device_train_batch_size=size, max_steps=10)


@pytest.mark.parametrize("width", [16, 40])
def test_a_decoder_one_row_at_a_time_at_a_fixed_width(tmp_path: Path, width: int) -> None:
    """Each batch is one row, padded on the left."""
    given = MARKED | {"data_collator": partial(rows.padded, left=True, width=width)}
    compared(tmp_path, decoder, given=given, per_device_train_batch_size=1, per_device_eval_batch_size=1, max_steps=10)
