"""A store's data on disk: each writer's files are its own, and all are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.base.files import atomic_file
from frostline.base.json import parse_json
from frostline.errors import StoreError
from frostline.store import folder as places
from frostline.store.mending import mend
from frostline.store.writer import claim
from frostline.store.writer_files import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from frostline.store.blocks import Block
    from frostline.store.packed import Bytes, StoredStream
    from frostline.store.row_index import Ints
    from frostline.store.writer import Writer


class DiskBacking:
    """The files of a store in a folder; a segment is what one writer wrote.

    Args:
        folder: The store's own folder, which has a header.
        streams: Its streams.
        writer: The number under which this process would write; the next free one is taken.
    """

    def __init__(self, folder: Path, streams: Sequence[StoredStream], writer: int) -> None:
        self._folder = folder
        self._streams = streams
        self._wanted = writer
        self._writer: Writer | None = None
        self._sources: dict[int, Source] = {}

    @property
    def writes_to(self) -> str:
        """Where the data lies."""
        return str(self._folder)

    @property
    def bytes_used(self) -> int:
        """Bytes of the store's files."""
        return places.size_on_disk(self._folder)

    @property
    def faults(self) -> list[str]:
        """What was found to be damaged, but for the data of blocks."""
        return [source.fault for source in self._sources.values() if source.fault]

    @property
    def completed_rows(self) -> int | None:
        """How many rows there were when the store was complete; None before."""
        try:
            with places.open_plain(self._folder / places.COMPLETE) as file:
                rows = parse_json(file.read(64).decode())
        except (OSError, StoreError, ValueError):
            return None
        return rows if type(rows) is int else None

    def append(self, digests: Sequence[bytes], lengths: Ints, raw: Sequence[Bytes]) -> tuple[int, list[int]]:
        """Take in rows; returns the segment and, per stream, the element where they start.

        Raises:
            OutputError: If they cannot be written; then all is as before.
        """
        with places.writing(self._folder):
            numbers = range(self._wanted, places.MOST_WRITERS)
            self._writer = self._writer or claim(self._folder, self._streams, numbers, self._source)
            if self._writer is None:
                raise StoreError(
                    f"The store '{self._folder}' has too many writers.\nRemove it with: frostline store clear"
                )
            return self._writer.number, self._writer.append(digests, lengths, raw)

    def _source(self, number: int) -> Source:
        if number not in self._sources:
            self._sources[number] = Source(self._folder, self._streams, number)
        return self._sources[number]

    def data(self, segment: int, stream: int) -> Bytes:
        """The bytes of a stream in a segment."""
        return self._source(segment).data(stream)

    def load(self) -> list[Block]:
        """Blocks that earlier runs and other writers left since the last call."""
        own = None if self._writer is None else self._writer.number
        found = [number for number in places.writers(self._folder) if number != own]
        return [block for number in found for block in self._source(number).load()]

    def intact(self, block: Block) -> bool:
        """Whether a block is as it was written."""
        return self._source(block.segment).intact(block)

    def flush(self) -> None:
        """Make what was appended survive this process.

        Raises:
            OutputError: If it cannot be written; a later call tries again.
        """
        if self._writer is not None:
            with places.writing(self._folder):
                self._writer.flush()

    def complete(self, rows: int) -> None:
        """Leave the mark that all rows are there.

        Raises:
            OutputError: If it cannot be written.
        """
        from filelock import FileLock

        self.flush()
        if self.completed_rows == rows:
            return
        lock, mark = FileLock(self._folder / places.LOCK), self._folder / places.COMPLETE
        with places.writing(self._folder), lock, atomic_file(mark) as file:
            file.write_text(f"{rows}\n", encoding="utf-8")

    def close(self) -> None:
        """Flush, give the files back, and drop from them what was found to be damaged.

        Raises:
            OutputError: If what was appended cannot be written.
        """
        writer, self._writer = self._writer, None
        damaged = [number for number, source in self._sources.items() if source.has_dead]
        self._sources.clear()
        if writer is not None:
            with places.writing(self._folder):
                writer.close()
        for number in damaged:
            mend(self._folder, self._streams, number)
