"""Where each row of a store lies."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


DIGEST_BYTES = 16
_SEGMENT, _BLOCK, _FIRST_STREAM = 0, 1, 2
TRUSTED = -1  # the block of rows that this process put there itself


class RowTable:
    """Per digest the segment, the block, and per stream the start and the length in elements."""

    def __init__(self, streams: int) -> None:
        self._row_of: dict[bytes, int] = {}
        self._places = np.empty((0, _FIRST_STREAM + 2 * streams), dtype=np.int64)
        self._used = 0

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._row_of

    def find(self, digests: Sequence[bytes]) -> list[int | None]:
        """Per digest its row, or None."""
        return list(map(self._row_of.get, digests))

    def add(self, digests: Sequence[bytes], segment: int, starts: Sequence[int], lengths: Ints, block: int) -> None:
        """Add rows that lie end to end; those already there are skipped.

        Args:
            digests: One per row.
            segment: Where they lie.
            starts: Per stream, the element where the first row starts.
            lengths: Elements per row and stream, shape (rows, streams).
            block: The block that they belong to.
        """
        places = np.empty((len(digests), self._places.shape[1]), dtype=np.int64)
        places[:, _SEGMENT], places[:, _BLOCK] = segment, block
        places[:, _FIRST_STREAM::2] = np.cumsum(lengths, axis=0) - lengths + np.asarray(starts, dtype=np.int64)
        places[:, _FIRST_STREAM + 1 :: 2] = lengths
        new = {digest: row for row, digest in enumerate(digests) if digest not in self._row_of}
        if len(new) < len(digests):
            places = places[list(new.values())]
        self._append(places)
        self._row_of.update(zip(new, range(self._used - len(new), self._used), strict=True))

    def _append(self, places: Ints) -> None:
        end = self._used + len(places)
        if end > len(self._places):
            self._grow(max(len(places), self._used))
        self._places[self._used : end] = places
        self._used = end

    def _grow(self, rows: int) -> None:
        grown = np.empty((self._used + rows, self._places.shape[1]), dtype=np.int64)
        grown[: self._used] = self._places[: self._used]
        self._places = grown

    def places(self, rows: Sequence[int]) -> Ints:
        """What is known of rows: shape (rows, 2 + 2 · streams); read it with the functions below."""
        return self._places[rows]

    def drop(self, blocks: Collection[int]) -> None:
        """Forget the rows of some blocks."""
        bad = np.isin(self._places[: self._used, _BLOCK], list(blocks))
        self._row_of = {digest: row for digest, row in self._row_of.items() if not bad[row]}


def segments_of(places: Ints) -> list[int]:
    """The segment of each row."""
    segments: list[int] = places[:, _SEGMENT].tolist()
    return segments


def blocks_of(places: Ints) -> set[int]:
    """The blocks that some rows belong to."""
    return set(places[:, _BLOCK].tolist())


def starts_and_lengths(places: Ints, stream: int) -> tuple[Ints, Ints]:
    """Where each row starts in a stream, and how long it is, in elements."""
    at = _FIRST_STREAM + 2 * stream
    return places[:, at], places[:, at + 1]
