"""The pass that fills a store: which texts, in which order, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    default_data_collator,
)
from transformers.trainer_utils import RemoveColumnsCollator

from frostline.training.padding import PaddedAtOnce

Collate = Callable[[list[Any]], Any]


_MASK, _IDS = "attention_mask", "input_ids"
_ARROW_ROWS = 10_000
# Tokens of one batch of the pass: large enough for the matrix products, small enough for the caches.
_TOKENS = 2048
_COLLATORS = (DataCollatorWithPadding, DataCollatorForTokenClassification, DefaultDataCollator, PaddedAtOnce)


@runtime_checkable
class Watches(Protocol):
    """A callback of a Trainer that is told how far the store is filled."""

    def on_fill(self, done: int, total: int) -> None:
        """Take note of the rows that are done, and of all of them."""


def lengths_of(dataset: Any) -> NDArray[np.int64] | None:
    """Real tokens per row, read without touching the rows one by one where the data set lies in columns.

    Returns:
        int64, (rows,); None for a data set whose rows may be others each time that they are asked for, or have no
        known number.
    """
    if isinstance(dataset, Subset):
        whole = lengths_of(dataset.dataset)
        return whole[np.asarray(dataset.indices, dtype=np.int64)] if whole is not None else None
    if type(dataset) in {list, tuple}:  # those that somebody made of them may do more
        return _of_rows(dataset)
    import datasets

    if isinstance(dataset, datasets.Dataset) and dataset.format["type"] != "custom":
        name = next((name for name in (_MASK, _IDS) if name in dataset.column_names), None)
        is_text = _IDS in dataset.column_names and not (len(dataset) and _is_nested(dataset[0][_IDS]))
        return _of_column(dataset, name) if name is not None and is_text else None
    return None


def _of_rows(rows: Sequence[Any]) -> NDArray[np.int64] | None:
    if not rows or not all(isinstance(row, Mapping) and _IDS in row for row in rows) or _is_nested(rows[0][_IDS]):
        return None
    masks = [row.get(_MASK) for row in rows]
    return np.array(
        [len(row[_IDS]) if mask is None else np.asarray(mask).sum() for row, mask in zip(rows, masks, strict=True)],
        dtype=np.int64,
    )


def _is_nested(ids: Any) -> bool:
    """Whether a row holds several texts, as those of multiple choice do."""
    return hasattr(ids, "__iter__") and any(np.ndim(value) > 0 for value in list(ids)[:1])


def _of_column(dataset: Any, name: str) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    lengths: list[NDArray[np.int64]] = []
    for table in dataset.with_format("arrow", columns=[name]).iter(batch_size=_ARROW_ROWS):
        column = table.column(name).combine_chunks()
        counts = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        if name == _MASK:
            sums = np.concatenate([[0], pc.list_flatten(column).to_numpy(zero_copy_only=False).cumsum(dtype=np.int64)])
            ends = counts.cumsum()
            counts = sums[ends] - sums[ends - counts]
        lengths.append(counts)
    return np.concatenate(lengths) if lengths else np.empty(0, dtype=np.int64)


def batches_of(lengths: NDArray[np.int64]) -> list[list[int]]:
    """Rows sorted by length, cut into batches of about equally many tokens."""
    batches: list[list[int]] = []
    room = 0
    for row, length in zip(order := lengths.argsort(kind="stable").tolist(), lengths[order].tolist(), strict=True):
        if length > room:
            batches.append([])
            room = max(_TOKENS, length)
        batches[-1].append(row)
        room -= length
    return batches


def is_known(collate: Any) -> bool:
    """Whether a collator does nothing but make a batch, as often as it is asked: those of transformers without chance.

    One of the user's own may count, draw or write when it is called, so it is called by the data loader only.
    """
    collate = collate.data_collator if type(collate) is RemoveColumnsCollator else collate
    return collate is default_data_collator or type(collate) in _COLLATORS


class ReplayableRows:
    """The rows of a data set as batches of model inputs, collated as a data loader does.

    Args:
        dataset: Where the rows are.
        collate: Makes a batch of some of them.
        device: Where the batches go.
    """

    def __init__(self, dataset: Any, collate: Collate, device: torch.device) -> None:
        self._dataset = dataset
        self._collate = collate
        self._device = device

    def batch(self, rows: list[int]) -> dict[str, Any]:
        """Model inputs of some rows, labels included."""
        fetch = getattr(self._dataset, "__getitems__", None)
        batch = self._collate(fetch(rows) if fetch is not None else [self._dataset[row] for row in rows])
        return {
            name: value.to(self._device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
        }

    def tried(self, rows: list[int]) -> dict[str, Any] | None:
        """The same; None where the collator does not take these rows together."""
        try:
            return self.batch(rows)
        except Exception:  # noqa: BLE001 - rows of the user's, in an order that may not fit together
            return None

    def batches(self, plan: Sequence[list[int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Per planned batch, its number of rows and its model inputs."""
        for rows in plan:
            yield len(rows), self.batch(rows)
