"""What a store asks of the place where its data lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.store.blocks import Block
    from frostline.store.packed import Bytes
    from frostline.store.row_index import Ints


class Backing(Protocol):
    """Where a store's data lies, in segments that only grow."""

    @property
    def writes_to(self) -> str:
        """The place, for people."""

    @property
    def bytes_used(self) -> int:
        """Bytes that it takes."""

    @property
    def faults(self) -> list[str]:
        """What was found to be damaged, but for the data of blocks."""

    @property
    def completed_rows(self) -> int | None:
        """How many rows there were when the store was complete; None before."""

    def append(self, digests: Sequence[bytes], lengths: Ints, raw: Sequence[Bytes], /) -> tuple[int, list[int]]:
        """Take in rows; returns the segment and, per stream, the element where they start."""

    def data(self, segment: int, stream: int) -> Bytes:
        """The bytes of a stream in a segment."""

    def load(self) -> list[Block]:
        """Blocks that others left since the last call."""

    def intact(self, block: Block, /) -> bool:
        """Whether such a block is as it was written."""

    def flush(self) -> None:
        """Make what was appended survive this process."""

    def complete(self, rows: int) -> None:
        """Remember that all rows are there."""

    def close(self) -> None:
        """Give everything back."""
