from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding
from transformers.utils.generic import PaddingStrategy

from frostline.training.padding import PaddedAtOnce, at_once
from tests.training import tiny

TOKENIZER: Any = tiny.wordpiece()


def features(count: int = 5, **more: Any) -> list[dict[str, Any]]:
    return [
        dict(TOKENIZER(row["text"])) | {name: values[at] for name, values in more.items()}
        for at, row in enumerate(tiny.rows(count))
    ]


PLAIN = {
    "a label": features(label=[0, 1, 0, 1, 1]),
    "a value": features(label=[0.5, 1, 0, 1, 2]),
    "labels that are named so already": features(label_ids=[0, 1, 0, 1, 1]),
    "a truth value": features(label=[True, False, True, True, False]),
    "no label": features(),
    "another column of numbers": features(weight=[1, 2, 3, 4, 5], label=[1] * 5),
    "pairs": [dict(TOKENIZER(row["text"], "film")) for row in tiny.rows(5)],
    "one row": features(1),
    "rows of one length": features(1) * 3,
}  # fmt: skip
OTHERS = {
    "several labels": features(label=[[0.0, 1.0]] * 5),
    "no mask": [{"input_ids": row["input_ids"]} for row in features()],
    "tensors": [{name: torch.tensor(value) for name, value in row.items()} for row in features()],
    "encodings": [TOKENIZER(row["text"]) for row in tiny.rows(5)],
    "a mask of fractions": [row | {"attention_mask": [0.5] * len(row["input_ids"])} for row in features()],
}


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    assert list(one) == list(other)
    for name, value in other.items():
        assert one[name].dtype == value.dtype
        assert torch.equal(one[name], value)
        assert one[name].is_contiguous()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("rows", PLAIN.values(), ids=PLAIN)
def test_batches_are_those_of_the_collator(
    rows: list[dict[str, Any]], side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TOKENIZER, "padding_side", side)
    collate = DataCollatorWithPadding(TOKENIZER)
    wanted = collate(copy.deepcopy(rows))
    monkeypatch.setattr(TOKENIZER, "pad", None)  # it is not asked
    given = copy.deepcopy(rows)
    assert_same(at_once(collate)(given), wanted)
    assert given == rows


@pytest.mark.parametrize("rows", OTHERS.values(), ids=OTHERS)
def test_other_rows_are_left_to_the_collator(rows: list[Any]) -> None:
    collate = DataCollatorWithPadding(TOKENIZER)
    assert_same(at_once(collate)(copy.deepcopy(rows)), collate(copy.deepcopy(rows)))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "max_length", "max_length": 40},
        {"pad_to_multiple_of": 8},
        {"padding": PaddingStrategy.LONGEST},
        {"padding": "longest"},
    ],
)
def test_other_ways_to_pad(options: dict[str, Any]) -> None:
    collate = DataCollatorWithPadding(TOKENIZER, **options)
    assert_same(at_once(collate)(features()), collate(features()))


def test_an_error_is_that_of_the_collator() -> None:
    collate = DataCollatorWithPadding(TOKENIZER)
    ragged = features(label=[[1], [1, 2], [1], [1], [1]])
    for own in (collate, at_once(collate)):
        with pytest.raises(ValueError, match="Unable to create tensor"):
            own(copy.deepcopy(ragged))


def test_collators_and_tokenizers_of_ones_own_are_kept() -> None:
    class Mine(DataCollatorWithPadding):
        pass

    class Pads(type(TOKENIZER)):  # type: ignore[misc]
        def pad(self, *arguments: Any, **options: Any) -> Any:
            return super().pad(*arguments, **options)

    own = copy.deepcopy(TOKENIZER)
    own.__class__ = Pads
    kept: list[Any] = [
        Mine(TOKENIZER),
        DataCollatorWithPadding(own),
        DataCollatorForTokenClassification(TOKENIZER),
        len,
    ]
    assert all(at_once(collate) is collate for collate in kept)
    assert type(at_once(DataCollatorWithPadding(TOKENIZER))) is PaddedAtOnce
