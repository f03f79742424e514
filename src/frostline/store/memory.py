"""A store's data in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from frostline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.store.blocks import Block
    from frostline.store.packed import Bytes, StoredStream
    from frostline.store.row_index import Ints

_SEGMENT_BYTES = 64 << 20  # per stream; what is not written to takes no memory


class MemoryBacking:
    """Buffers that are filled from the front; when one of the streams' is full, each stream gets a new one."""

    writes_to = "memory"

    def __init__(self, streams: Sequence[StoredStream]) -> None:
        self._streams = streams
        self._segments: list[list[Bytes]] = []
        self._used = [0] * len(streams)  # bytes of the last segment
        self._bytes = 0
        self.completed_rows: int | None = None

    @property
    def bytes_used(self) -> int:
        """Bytes of the values held."""
        return self._bytes

    @property
    def faults(self) -> list[str]:
        """What was found to be damaged: nothing."""
        return []

    def append(self, _digests: Sequence[bytes], _lengths: Ints, raw: Sequence[Bytes]) -> tuple[int, list[int]]:
        """Take in rows; returns the segment and, per stream, the element where they start."""
        sizes = [len(values) for values in raw]
        if not self._segments or any(
            used + size > len(buffer) for used, size, buffer in zip(self._used, sizes, self._segments[-1], strict=True)
        ):
            self._open([max(size, _SEGMENT_BYTES) for size in sizes])
        starts = [used // stream.element_bytes for used, stream in zip(self._used, self._streams, strict=True)]
        for buffer, used, values in zip(self._segments[-1], self._used, raw, strict=True):
            buffer[used : used + len(values)] = values
        self._used = [used + size for used, size in zip(self._used, sizes, strict=True)]
        self._bytes += sum(sizes)
        return len(self._segments) - 1, starts

    def _open(self, sizes: Sequence[int]) -> None:
        try:
            self._segments.append([np.empty(size, dtype=np.uint8) for size in sizes])
        except MemoryError:
            raise StoreError(
                f"There is no memory for a store of {sum(sizes) / 1e6:,.0f} MB more.\nKeep it on disk."
            ) from None
        self._used = [0] * len(sizes)

    def data(self, segment: int, stream: int) -> Bytes:
        """The bytes of a stream in a segment."""
        return self._segments[segment][stream]

    def load(self) -> list[Block]:
        """Blocks that others wrote: none."""
        return []

    def intact(self, _block: Block) -> bool:
        """Whether a block is as it was written."""
        return True

    def flush(self) -> None:
        """Nothing is held back."""

    def complete(self, rows: int) -> None:
        """Remember that all rows are there."""
        self.completed_rows = rows

    def close(self) -> None:
        """Give the memory back."""
        self._segments.clear()
        self._bytes = 0
