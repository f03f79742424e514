"""Batches as ``DataCollatorWithPadding`` makes them, made at once instead of row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchEncoding, DataCollatorWithPadding

from frostline.compat.models import pads_by_usual_code

_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
_LABELS = ("label", "label_ids")
_LONGEST = (True, "longest")


def at_once(collate: Callable[..., Any]) -> Callable[..., Any]:
    """A collator that gives the same batches in less time, where one is known; else the same one.

    Args:
        collate: A collator; only ``DataCollatorWithPadding`` itself, padding to the longest row by the tokenizers' own
            code, is known.
    """
    if type(collate) is not DataCollatorWithPadding:
        return collate
    return PaddedAtOnce(collate) if pads_by_usual_code(type(collate.tokenizer)) else collate


class PaddedAtOnce:
    """Stands in for a ``DataCollatorWithPadding``, and asks it wherever rows are more than lists of whole numbers.

    Args:
        collate: The collator.
    """

    def __init__(self, collate: DataCollatorWithPadding) -> None:
        self._collate = collate

    def __call__(self, features: Sequence[Any]) -> Any:
        """Make a batch: int64, (rows, length), of what has a value per token; (rows,) of what has one per row."""
        batch = self._padded(features)
        return self._collate(features) if batch is None else BatchEncoding(batch)  # type: ignore[arg-type]

    def _padded(self, features: Sequence[Any]) -> dict[str, torch.Tensor] | None:
        collate, first = self._collate, features[0]
        tokenizer: Any = collate.tokenizer
        blanks = {_IDS: tokenizer.pad_token_id, _MASK: 0, _TYPES: tokenizer.pad_token_type_id}
        if (
            collate.padding not in _LONGEST
            or collate.max_length is not None
            or collate.pad_to_multiple_of is not None
            or collate.return_tensors != "pt"
            or tokenizer.model_input_names[0] != _IDS
            or tokenizer.padding_side not in {"right", "left"}
            or blanks[_IDS] is None
            or type(first) is not dict
            or not {_IDS, _MASK}.issubset(first)
        ):
            return None
        lengths = np.array([len(row[_IDS]) for row in features])
        places = np.arange(lengths.max())
        if tokenizer.padding_side == "left":
            places = places[::-1]
        real = places < lengths[:, None]  # (rows, length)
        batch = {}
        for name, value in first.items():
            column = [row[name] for row in features]
            made = _per_token(column, lengths, real, blanks[name]) if name in blanks else _per_row(value, column)
            if made is None:
                return None
            batch[name] = made
        for name in _LABELS:
            if name in batch:
                batch["labels"] = batch.pop(name)
        return batch


def _per_token(column: list[Any], lengths: NDArray[np.int64], real: NDArray[np.bool_], blank: int) -> Any:
    """The values of all rows in one tensor; None where they are no lists of whole numbers, one per token."""
    if any(type(row) is not list for row in column) or list(map(len, column)) != lengths.tolist():
        return None
    values = np.array(list(chain.from_iterable(column)))
    if values.dtype != np.int64 or values.ndim != 1:
        return None
    whole = np.full(real.shape, blank)
    whole[real] = values
    return torch.from_numpy(whole)


def _per_row(first: Any, column: list[Any]) -> Any:
    return torch.tensor(column) if isinstance(first, int | float) else None
