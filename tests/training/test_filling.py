from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import Subset

from frostline.training.filling import Texts, batches_of, lengths_of, rows_to_try
from tests.training import tokens

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


def test_rows_to_try_are_of_all_lengths() -> None:
    assert rows_to_try(np.array([9, 3, 7, 5, 1]), 3) == [4, 3, 0]
    assert rows_to_try(np.array([9, 3]), 4) == [1, 0]


def test_a_batch_as_the_loader_makes_it() -> None:
    texts = Texts(Dataset.from_list(tokens.rows(8)), tokens.collate, torch.device("cpu"))
    batch = texts.tried([2, 0])
    assert batch is not None
    wanted = tokens.collate([tokens.rows(8)[2], tokens.rows(8)[0]])
    assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


def test_rows_that_change_or_fail_are_not_tried() -> None:
    def drawing(batch: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.rand(len(batch), 3)}

    def failing(_batch: Any) -> dict[str, torch.Tensor]:
        raise ValueError

    for collate in (drawing, failing):
        assert Texts(PADDED, collate, torch.device("cpu")).tried([0, 1]) is None
