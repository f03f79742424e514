"""Rows for models of one's own, and a collator that pads every column to its own longest."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Row = dict[str, Any]
MARK = 99  # a token that no text has but where it is put


def texts(count: int, shortest: int = 3, longest: int = 24, seed: int = 0) -> list[list[int]]:
    """Texts of so many tokens, each opened by 1 and closed by 2."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    lengths = [draw.randint(shortest, longest) for _ in range(count)]
    return [[1, *(draw.randint(3, 98) for _ in range(length - 2)), 2] for length in lengths]


def encoded(column: Iterable[list[int]], suffix: str = "") -> list[Row]:
    """Texts as the columns ``input_ids`` and ``attention_mask``."""
    return [{f"input_ids{suffix}": ids, f"attention_mask{suffix}": [1] * len(ids)} for ids in column]


def labelled(rows: Iterable[Row], classes: int = 2) -> list[Row]:
    """The same with the labels 0, 1, … in turn."""
    return [row | {"labels": index % classes} for index, row in enumerate(rows)]


def joined(*columns: Iterable[Row]) -> list[Row]:
    """Rows with the columns of several."""
    return [{name: value for part in parts for name, value in part.items()} for parts in zip(*columns, strict=True)]


def given(make: Callable[[int, int], list[Row]], collate: Any = None) -> dict[str, Any]:
    """What a Trainer is given: 40 rows to train on, 12 held out, each made with a seed of its own."""
    return {
        "data_collator": collate or padded,
        "train_dataset": Dataset.from_list(make(40, 0)),
        "eval_dataset": Dataset.from_list(make(12, 1)),
    }


def padded(batch: list[Row], *, multiple: int = 1, width: int = 0, left: bool = False) -> dict[str, Any]:
    """Pad each column of lists to its own longest row, to a multiple of something, or to a width.

    Labels are padded by -100, all else by 0.
    """
    return {name: _column(name, [row[name] for row in batch], multiple, width, left=left) for name in batch[0]}


def _column(name: str, values: list[Any], multiple: int, width: int, *, left: bool) -> torch.Tensor:
    if not isinstance(values[0], list) or isinstance(values[0][0], float):
        return torch.tensor(values)
    longest = max(width, *(-(-len(value) // multiple) * multiple for value in values))
    fill = -100 if name == "labels" else 0
    blanks = ([fill] * (longest - len(value)) for value in values)
    return torch.tensor([blank + value if left else value + blank for value, blank in zip(values, blanks, strict=True)])
