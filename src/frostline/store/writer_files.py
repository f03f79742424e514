"""The files of one writer of a store on disk, read with distrust."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from frostline.errors import StoreError
from frostline.store import folder as places
from frostline.store.blocks import Block, scan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from frostline.store.packed import Bytes, StoredStream


class Source:
    """What one writer wrote: the part of it that its index vouches for.

    Attributes:
        index_end: Bytes of the index that are read.
        ends: Per stream, the elements that are vouched for.
        fault: What is damaged; nothing if all that was read is sound.
        has_dead: Whether the files hold what was read, and is not what was written.
    """

    def __init__(self, folder: Path, streams: Sequence[StoredStream], number: int) -> None:
        self._folder = folder
        self._streams = streams
        self._number = number
        self._maps: list[Bytes] = [np.empty(0, dtype=np.uint8)] * len(streams)
        self._mapped: dict[int, int] = {}  # per stream that is mapped, the inode of its file
        self.index_end = 0
        self.ends = [0] * len(streams)
        self.fault = ""
        self.has_dead = False

    def load(self) -> list[Block]:
        """Read the records that were appended since the last time."""
        file, seed = places.index_file(self._folder, self._number), places.checksum_seed(self._folder)
        try:
            with places.open_plain(file) as index:
                found = scan(index, places.size_of(index), len(self._streams), self._number, seed, self.index_end)
            sizes = [self._size(stream) for stream in range(len(self._streams))] if found.blocks else []
        except (OSError, StoreError) as error:
            self.fault = f"'{file.name}' cannot be read: {error}"
            return []
        self.index_end = found.end
        self.fault = f"'{file.name}' is damaged from byte {found.end:,} on" if found.damaged else self.fault
        whole = [block for block in found.blocks if self._fits(block, sizes)]
        if len(whole) < len(found.blocks):
            self.fault = f"'{file.name}' names data that is not there"
        self.has_dead = self.has_dead or found.damaged or len(whole) < len(found.blocks)
        for block in whole:
            ends = [span.start + span.elements for span in block.spans]
            self.ends = list(map(max, self.ends, ends))
        return whole

    def _size(self, stream: int) -> int:
        try:
            with places.open_plain(places.data_file(self._folder, self._number, stream)) as data:
                if self._mapped.get(stream, inode := places.inode_of(data)) != inode:
                    raise StoreError("its data lies in another file by now")
                return places.size_of(data)
        except FileNotFoundError:
            return 0

    def _fits(self, block: Block, sizes: Sequence[int]) -> bool:
        return all(
            (span.start + span.elements) * stream.element_bytes <= size
            for span, stream, size in zip(block.spans, self._streams, sizes, strict=True)
        )

    def data(self, stream: int) -> Bytes:
        """The bytes of a stream that are vouched for, mapped for reading.

        Raises:
            StoreError: If the file is gone, or shorter than it was.
        """
        size = self.ends[stream] * self._streams[stream].element_bytes
        if size > len(self._maps[stream]):
            file = places.data_file(self._folder, self._number, stream)
            try:
                with places.open_plain(file) as data:
                    mapped = mmap.mmap(data.fileno(), size, access=mmap.ACCESS_READ)
                    self._mapped[stream] = places.inode_of(data)
            except (OSError, ValueError) as error:
                raise StoreError(f"'{file}' cannot be read any more: {error}.\nRun this again.") from None
            self._maps[stream] = np.frombuffer(mapped, dtype=np.uint8)
        return self._maps[stream]

    def intact(self, block: Block) -> bool:
        """Whether the data of a block has the checksums that the index says."""
        try:
            for number, (span, stream) in enumerate(zip(block.spans, self._streams, strict=True)):
                begin, size = span.start * stream.element_bytes, span.elements * stream.element_bytes
                if xxhash.xxh3_64_intdigest(self.data(number)[begin : begin + size].data) != span.checksum:
                    self.has_dead = True
                    return False
        except StoreError:
            return False
        return True
