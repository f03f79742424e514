"""Texts to token ids.

Nothing is padded here: a batch is padded, or packed, where it is composed. Texts longer than the
model takes are truncated, and counted. The result stays in memory, so that no cached copies pile up
on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from frostline.data.examples import TEXT_NAMES, rows_where, table_of
from frostline.data.messages import numbered
from frostline.data.quiet_datasets import quiet_datasets
from frostline.errors import DataError

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

_UNLIMITED = 1_000_000  # transformers writes 1e30 for "no limit known"
_TRUNCATED = "__frostline_truncated__"


@dataclass(frozen=True)
class TokenStats:
    """What tokenising found.

    Attributes:
        rows: The number of texts (or pairs).
        tokens: The number of tokens in all rows, special tokens included.
        longest: The number of tokens of the longest row.
        truncated: The number of rows that were cut at ``max_length``.
        max_length: The number of tokens at which rows are cut; ``None`` if nowhere.
    """

    rows: int
    tokens: int
    longest: int
    truncated: int
    max_length: int | None

    def __str__(self) -> str:
        mean = self.tokens / self.rows
        text = f"{self.rows:,} rows, {self.tokens:,} tokens ({mean:.1f} per row, longest {self.longest:,})"
        if self.truncated:
            text += f", {self.truncated:,} rows truncated to {self.max_length:,} tokens"
        return text


def tokenise(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    model_limit: int | None = None,
) -> tuple[datasets.Dataset, TokenStats]:
    """Turns texts into token ids.

    Args:
        dataset: A column ``text`` and perhaps ``text_pair``; every other column is kept.
        tokenizer: A tokenizer of transformers.
        max_length: Truncates to so many tokens, special tokens included. Unless told, what the
            tokenizer and the model take, whichever is less.
        model_limit: The number of tokens that the model takes, if known.

    Returns:
        The rows without the texts, with what the tokenizer returns instead: per row a list
        ``input_ids`` (int32), a list ``attention_mask`` (int8), perhaps ``token_type_ids`` (int8),
        each as long as the row has tokens; and counts of rows and tokens.

    Raises:
        DataError: ``max_length`` is out of range, or a text has no tokens.
    """
    import pyarrow.compute as pc

    columns = [name for name in TEXT_NAMES if name in dataset.column_names]
    limit = _limit(tokenizer, max_length, model_limit, pair=len(columns) == 2)

    with quiet_datasets():
        tokenised = dataset.map(
            lambda batch: _encode(tokenizer, [list(batch[name]) for name in columns], limit),
            batched=True,
            remove_columns=columns,
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint=uuid4().hex[:16],  # else datasets hashes the tokenizer, which takes time
            desc="Tokenising",
        )
    table = table_of(tokenised.select_columns(["input_ids", _TRUNCATED]))
    lengths = pc.list_value_length(table.column("input_ids"))
    rows = rows_where(pc.equal(lengths, 0))
    if rows:
        raise DataError(
            f"The tokenizer makes no tokens of {numbered('row', rows)}.\n"
            "Remove these rows, or use a tokenizer that adds special tokens."
        )
    return tokenised.remove_columns(_TRUNCATED), TokenStats(
        rows=len(tokenised),
        tokens=pc.sum(lengths).as_py(),
        longest=pc.max(lengths).as_py(),
        truncated=pc.sum(table.column(_TRUNCATED)).as_py(),
        max_length=limit,
    )


def _limit(
    tokenizer: PreTrainedTokenizerBase, wanted: int | None, model_limit: int | None, *, pair: bool
) -> int | None:
    own = tokenizer.model_max_length if tokenizer.model_max_length < _UNLIMITED else None
    if wanted is None:
        return min((size for size in (own, model_limit) if size is not None), default=None)
    most = own if model_limit is None else model_limit
    least = tokenizer.num_special_tokens_to_add(pair=pair) + (2 if pair else 1)
    if wanted < least:
        raise DataError(
            f"The maximum length is {wanted} tokens; it must be {least} or more, to hold the "
            f"special tokens and a token of {'each' if pair else 'the'} text."
        )
    if most is not None and wanted > most:
        raise DataError(
            f"The maximum length is {wanted:,} tokens, but the model takes {most:,} at most.\nSet it to {most} or less."
        )
    return wanted


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], limit: int | None) -> dict[str, Any]:
    """Tokenises one batch and marks the rows that were truncated."""
    encoded = tokenizer(*texts, truncation=limit is not None, max_length=limit, padding=False, verbose=False)
    truncated = [False] * len(texts[0])
    full = [row for row, ids in enumerate(encoded["input_ids"]) if len(ids) == limit]
    if full and encoded.encodings is not None:
        for row in full:
            truncated[row] = bool(encoded.encodings[row].overflowing)
    elif full:  # tokenizers in Python do not say what they cut
        again = tokenizer(*([column[row] for row in full] for column in texts), verbose=False)
        for row, ids in zip(full, again["input_ids"], strict=True):
            truncated[row] = len(ids) > len(encoded["input_ids"][row])
    return {**encoded, _TRUNCATED: truncated}
