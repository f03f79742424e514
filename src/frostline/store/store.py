"""The store: rows of activations, found by a digest of what they were computed from."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

import torch

from frostline.base.logging import get_logger
from frostline.errors import StoreError
from frostline.store.blocks import MOST_ROWS, Block
from frostline.store.disk import DiskBacking
from frostline.store.folder import FOLDER_DIGITS
from frostline.store.header import Header, settle
from frostline.store.memory import MemoryBacking
from frostline.store.packed import Bytes, Packed, StoredStream, lengths_of, select_rows, stored_streams
from frostline.store.row_index import DIGEST_BYTES, TRUSTED, Ints, RowTable, blocks_of, segments_of, starts_and_lengths
from frostline.store.spec import StoreKey, StreamSpec

__all__ = ["Packed", "Store"]


class Store:
    """Rows of activations, each found by the digest of its model inputs.

    Made by `in_memory` or `on_disk`, which differ in nothing but where the data lies. Blocks that this process did
    not write are compared with their checksums once, when one of their rows is asked for first; the rows of a damaged
    block count as missing, and a line says so. One thread at a time may use a store.

    Attributes:
        key: All that its content depends on.
    """

    def __init__(self, key: StoreKey, streams: Sequence[StoredStream], backing: DiskBacking | MemoryBacking) -> None:
        self.key = key
        self._streams = streams
        self._backing = backing
        self._table = RowTable(len(streams))
        self._blocks: dict[int, Block] = {}  # what this process did not write
        self._blocks_seen = 0
        self._unverified: set[int] = set()
        self._close = weakref.finalize(self, backing.close)  # what is never closed is, with the last reference
        self.refresh()
        for fault in backing.faults:
            get_logger().warning(f"The store '{backing.writes_to}' has lost rows: {fault}.")

    @classmethod
    def in_memory(cls, key: StoreKey, streams: Sequence[StreamSpec], *, dtype: torch.dtype | None = None) -> Store:
        """Make a store that lives as long as it is referred to.

        Args:
            key: All that the content depends on.
            streams: The tensors to hold per row.
            dtype: The dtype that floats are stored in; None keeps them as they are.
        """
        stored = stored_streams(streams, dtype)
        return cls(key, stored, MemoryBacking(stored))

    @classmethod
    def on_disk(
        cls,
        folder: Path,
        key: StoreKey,
        streams: Sequence[StreamSpec],
        *,
        dtype: torch.dtype | None = None,
        writer: int = 0,
        about: Mapping[str, str] | None = None,
    ) -> Store:
        """Open the store of a key in a folder of stores, or begin it.

        Args:
            folder: The folder of stores; `frostline.store.folder.default_folder` is the usual one.
            key: All that the content depends on.
            streams: The tensors to hold per row.
            dtype: The dtype that floats are stored in; None keeps them as they are.
            writer: The number under which this process writes, such as its rank; if another process has it, the next
                free one is taken.
            about: What the store is for, for `frostline store list`: ``model``.

        Raises:
            OutputError: If there is no store yet and none can be made.
            StoreError: If its header is damaged or another one's, and another process writes to it.
        """
        header = Header(
            key=key,
            streams=tuple(streams),
            dtype=dtype,
            # A name that came from a path may hold halves of characters, which no JSON file should.
            about={name: text.encode(errors="replace").decode() for name, text in (about or {}).items()},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            frostline=version("frostline"),
        )
        stored = stored_streams(streams, dtype)
        place = folder / key.digest()[:FOLDER_DIGITS]
        settle(place, header)
        return cls(key, stored, DiskBacking(place, stored, writer))

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return len(self._table)

    @property
    def bytes_used(self) -> int:
        """Bytes that its values take in memory, or its files on disk."""
        return self._backing.bytes_used

    def __contains__(self, digest: bytes) -> bool:
        return self._find([digest]) != [None]

    def missing(self, digests: Sequence[bytes]) -> list[int]:
        """The positions of the digests that it does not hold; of equal ones the first."""
        new: dict[bytes, int] = {}
        for position, (digest, row) in enumerate(zip(digests, self._find(digests), strict=True)):
            if row is None:
                new.setdefault(digest, position)
        return list(new.values())

    def put(self, digests: Sequence[bytes], values: Mapping[str, Packed]) -> None:
        """Store rows; those that it holds already are skipped.

        Args:
            digests: 16 bytes per row.
            values: Per stream's name, the rows.

        Raises:
            StoreError: If the values do not fit the streams, or the memory.
            OutputError: If they cannot be written; the store is as before.
        """
        if not self._close.alive:
            raise StoreError("The store is closed, so nothing can be put into it.")
        if any(len(digest) != DIGEST_BYTES for digest in digests):
            raise StoreError(f"A row's digest has {DIGEST_BYTES} bytes.")
        lengths = lengths_of(values, self._streams, len(digests))
        new = self.missing(digests)
        if not new:
            return
        raw = [stream.encode(values[stream.spec.name].values) for stream in self._streams]
        for begin in range(0, len(new), MOST_ROWS):
            rows = new[begin : begin + MOST_ROWS]
            if len(rows) == len(digests):
                self._append(digests, lengths, raw)
                return
            part = [
                select_rows(data, lengths[:, number], rows, stream.element_bytes)
                for number, (data, stream) in enumerate(zip(raw, self._streams, strict=True))
            ]
            self._append([digests[row] for row in rows], lengths[rows], part)

    def _append(self, digests: Sequence[bytes], lengths: Ints, raw: Sequence[Bytes]) -> None:
        segment, starts = self._backing.append(digests, lengths, raw)
        self._table.add(digests, segment, starts, lengths, TRUSTED)

    def get(self, digests: Sequence[bytes]) -> dict[str, Packed]:
        """Fetch rows, in the order given; a digest may stand there more than once.

        Args:
            digests: One per row.

        Returns:
            Per stream's name, the rows on the CPU, in the stream's own dtype.

        Raises:
            StoreError: If a row is not there.
        """
        found = self._find(digests)
        rows = [row for row in found if row is not None]
        if len(rows) < len(digests):
            raise StoreError(f"The store does not hold the row {digests[found.index(None)].hex()}.")
        places = self._table.places(rows)
        segments = segments_of(places)
        result = {}
        for number, stream in enumerate(self._streams):
            starts, lengths = starts_and_lengths(places, number)
            data = {segment: self._backing.data(segment, number) for segment in set(segments)}
            values = stream.gather(data, segments, starts, lengths)
            result[stream.spec.name] = Packed(values, torch.from_numpy(lengths.copy()))
        return result

    def _find(self, digests: Sequence[bytes]) -> list[int | None]:
        rows = self._table.find(digests)
        while self._unverified and self._found_damage([row for row in rows if row is not None]):
            rows = self._table.find(digests)
        return rows

    def _found_damage(self, rows: Sequence[int]) -> bool:
        """Verify the blocks of some rows that are not verified yet, and forget what is damaged."""
        asked = blocks_of(self._table.places(rows)) & self._unverified
        self._unverified -= asked
        damaged = [number for number in sorted(asked) if not self._backing.intact(self._blocks[number])]
        if not damaged:
            return False
        before = self.rows
        self._table.drop(damaged)
        for number in damaged:
            del self._blocks[number]
        for number, block in self._blocks.items():  # another block may hold the row, too
            self._enter(number, block)
        if self.rows < before:
            get_logger().warning(
                f"The store '{self._backing.writes_to}' has lost {before - self.rows} rows to damage. "
                "They are computed again."
            )
        return True

    def flush(self) -> None:
        """Make what was put survive this process, however it ends.

        Raises:
            OutputError: If it cannot be written; a later call tries again.
        """
        self._backing.flush()

    def refresh(self) -> None:
        """Take in what other writers flushed since the store was opened, or since the last call."""
        for number, block in enumerate(self._backing.load(), start=self._blocks_seen):
            self._blocks[number] = block
            self._unverified.add(number)
            self._enter(number, block)
            self._blocks_seen += 1

    def _enter(self, number: int, block: Block) -> None:
        starts = [span.start for span in block.spans]
        self._table.add(block.digests, block.segment, starts, block.lengths, number)

    def complete(self) -> None:
        """Say that all rows that it is for are there.

        Raises:
            OutputError: If that cannot be written.
        """
        self._backing.complete(self.rows)

    def close(self) -> None:
        """Flush, and give memory and files back; after that the store is empty.

        Raises:
            OutputError: If what was put cannot be written.
        """
        self._table = RowTable(len(self._streams))
        self._blocks.clear()
        self._unverified.clear()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
