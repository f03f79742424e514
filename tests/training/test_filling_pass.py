from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import Subset
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    default_data_collator,
)
from transformers.trainer_utils import RemoveColumnsCollator

from frostline.training.filling_pass import ReplayableRows, batches_of, is_known, lengths_of
from frostline.training.padding import at_once
from tests.training import tiny, tokens

if TYPE_CHECKING:
    from collections.abc import Callable

PADDED = tokens.rows(30, width=40)
REAL = [sum(row["attention_mask"]) for row in PADDED if isinstance(row["attention_mask"], list)]


@pytest.mark.parametrize(
    "dataset",
    [
        PADDED,
        Dataset.from_list(PADDED),
        Dataset.from_list(PADDED).with_format("torch"),
        Dataset.from_list(PADDED[::-1]).select(range(29, -1, -1)),
        Dataset.from_list(tokens.rows(30)).remove_columns("attention_mask"),
        [{"input_ids": row["input_ids"]} for row in tokens.rows(30)],
        [{"input_ids": np.array(row["input_ids"])} for row in tokens.rows(30)],
        [{"input_ids": torch.tensor(row["input_ids"])} for row in tokens.rows(30)],
    ],
)
def test_lengths_of_real_tokens(dataset: Any) -> None:
    lengths = lengths_of(dataset)
    assert lengths is not None
    assert lengths.tolist() == REAL
    part = lengths_of(Subset(dataset, [3, 1]))
    assert part is not None
    assert part.tolist() == [REAL[3], REAL[1]]


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset.from_list(PADDED).with_transform(lambda batch: batch),
        Dataset.from_dict({"text": ["a"]}),
        [{"text": "a"}],
        [],
        iter(PADDED),
        None,
        torch.utils.data.TensorDataset(torch.ones(2, 3)),
        [{"input_ids": [[1, 2], [3]], "labels": 0}],
        Dataset.from_list([{"input_ids": [[1, 2], [3]], "labels": 0}]),
    ],
)
def test_rows_that_nobody_knows_beforehand(dataset: Any) -> None:
    assert lengths_of(dataset) is None


def test_batches_are_sorted_and_about_equally_large() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 500)
    batches = batches_of(lengths)
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(500))
    assert lengths[order].tolist() == sorted(lengths.tolist())
    sizes = [int(lengths[batch].sum()) for batch in batches]
    assert max(sizes) <= 2048
    assert min(sizes[:-1]) > 2048 - 400


def test_a_row_longer_than_a_batch_stands_alone() -> None:
    assert batches_of(np.array([3000, 5, 5000])) == [[1], [0], [2]]


def test_a_batch_as_the_loader_makes_it() -> None:
    texts = ReplayableRows(Dataset.from_list(tokens.rows(8)), tokens.collate, torch.device("cpu"))
    batch = texts.tried([2, 0])
    assert batch is not None
    wanted = tokens.collate([tokens.rows(8)[2], tokens.rows(8)[0]])
    assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


def test_rows_that_do_not_go_together_are_not_tried() -> None:
    rows = tokens.rows(8)
    assert len({len(row["input_ids"]) for row in rows if isinstance(row["input_ids"], list)}) > 1
    assert ReplayableRows(rows, default_data_collator, torch.device("cpu")).tried([0, 1, 2]) is None
    assert ReplayableRows(PADDED, default_data_collator, torch.device("cpu")).tried([0, 1, 2]) is not None


def test_batches_of_a_plan() -> None:
    texts = ReplayableRows(PADDED, default_data_collator, torch.device("cpu"))
    found = list(texts.batches([[2, 0], [1]]))
    assert [count for count, _ in found] == [2, 1]
    assert found[0][1]["input_ids"].tolist() == [PADDED[2]["input_ids"], PADDED[0]["input_ids"]]


class OwnPadding(DataCollatorWithPadding):
    """It may do anything when it is called."""


KNOWN: dict[str, Callable[[], Any]] = {
    "padding": tokens.padding,
    "padding at once": lambda: at_once(tokens.padding()),
    "the default": lambda: default_data_collator,
    "the default as a class": DefaultDataCollator,
    "labels per token": lambda: DataCollatorForTokenClassification(tiny.wordpiece()),
}
OTHERS: dict[str, Callable[[], Any]] = {
    "a function of one's own": lambda: tokens.collate,
    "a class that inherits": lambda: OwnPadding(tiny.wordpiece()),
    "masks at random": lambda: DataCollatorForLanguageModeling(tiny.wordpiece()),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("name", KNOWN)
def test_collators_that_may_be_asked_again(name: str) -> None:
    assert is_known(KNOWN[name]())
    assert is_known(RemoveColumnsCollator(KNOWN[name](), ["input_ids"]))


@pytest.mark.parametrize("name", OTHERS)
def test_collators_that_are_the_loader_s_alone(name: str) -> None:
    assert not is_known(OTHERS[name]())
    assert not is_known(RemoveColumnsCollator(OTHERS[name](), ["input_ids"]))
