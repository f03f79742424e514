"""Appending to a store on disk: data first, then the record that vouches for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import xxhash

from frostline.errors import StoreError
from frostline.store import folder as places
from frostline.store.blocks import MOST_ROWS, Block, Span, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from filelock import BaseFileLock

    from frostline.store.packed import Bytes, StoredStream
    from frostline.store.row_index import Ints
    from frostline.store.writer_files import Source

_BLOCK_BYTES = 8 << 20


def claim(
    folder: Path, streams: Sequence[StoredStream], numbers: Iterable[int], source: Callable[[int], Source]
) -> Writer | None:
    """Take the first of some numbers whose files this process can go on with; None where it is none of them.

    Args:
        folder: The store's folder.
        streams: Its streams.
        numbers: The numbers to try.
        source: Gives what was read of a number's files.
    """
    from filelock import FileLock, Timeout

    for number in numbers:
        lock = FileLock(places.writer_lock(folder, number), thread_local=False)
        try:
            lock.acquire(blocking=False)
            return Writer(folder, streams, number, lock, source(number))
        except (Timeout, StoreError):  # held by another process, or of no use: its files stay as they are
            continue
    return None


class Writer:
    """The files of one writer, held by this process alone.

    Args:
        folder: The store's folder.
        streams: Its streams.
        number: The writer's number.
        lock: The lock on it, acquired; it is released when the files cannot be gone on with.
        source: What was read of these files.

    Raises:
        StoreError: If the files hold more than was read of them, or are damaged.
        OSError: If they cannot be written.
    """

    def __init__(
        self, folder: Path, streams: Sequence[StoredStream], number: int, lock: BaseFileLock, source: Source
    ) -> None:
        self.number = number
        self._folder = folder
        self._streams = streams
        self._lock = lock
        self._source = source
        self._process = os.getpid()
        self._files: list[BinaryIO] = []
        try:
            self._index = self._open(places.index_file(folder, number))
            self._data = [self._open(places.data_file(folder, number, stream)) for stream in range(len(streams))]
            self._cut_torn_tail()
        except (OSError, StoreError):
            self.release()
            raise
        self._begin_block()

    def _open(self, file: Path) -> BinaryIO:
        self._files.append(places.open_plain(file, write=True))
        return self._files[-1]

    def _cut_torn_tail(self) -> None:
        """Cut off what no record vouches for; no reader ever mapped that."""
        size, begin = places.size_of(self._index), self._source.index_end
        more = scan(self._index, size, len(self._streams), self.number, places.checksum_seed(self._folder), begin)
        sizes = [end * stream.element_bytes for end, stream in zip(self._source.ends, self._streams, strict=True)]
        short = any(places.size_of(data) < size for data, size in zip(self._data, sizes, strict=True))
        if self._source.fault or more.blocks or more.damaged or short:
            raise StoreError("These files cannot be gone on with.")
        self._index.truncate(begin)
        for data, size in zip(self._data, sizes, strict=True):
            data.truncate(size)

    def _begin_block(self) -> None:
        self._digests: list[bytes] = []
        self._lengths: list[Ints] = []
        self._starts = list(self._source.ends)
        self._hashes = [xxhash.xxh3_64() for _ in self._streams]

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._process

    def append(self, digests: Sequence[bytes], lengths: Ints, raw: Sequence[Bytes]) -> list[int]:
        """Append rows, at most `MOST_ROWS`; they can be read at once, and survive this process from `flush` on.

        Args:
            digests: One per row.
            lengths: Elements per row and stream, shape (rows, streams).
            raw: Per stream, the bytes of the rows.

        Returns:
            Per stream, the element where they start.

        Raises:
            OSError: If they cannot be written; then all is as before.
            StoreError: If this is a copy of the process that holds the files.
        """
        if self._forked:
            raise StoreError("A forked process cannot write to the store of its parent.\nOpen the store in it.")
        if len(self._digests) + len(digests) > MOST_ROWS:
            self.flush()
        starts = list(self._source.ends)
        begins = [start * stream.element_bytes for start, stream in zip(starts, self._streams, strict=True)]
        _write(self._data, begins, [values.data for values in raw])
        for hash_, values in zip(self._hashes, raw, strict=True):
            hash_.update(values.data)
        self._source.ends = [start + int(count) for start, count in zip(starts, lengths.sum(axis=0), strict=True)]
        self._digests += digests
        self._lengths.append(lengths)
        ends = zip(self._source.ends, self._starts, self._streams, strict=True)
        if sum((end - start) * stream.element_bytes for end, start, stream in ends) >= _BLOCK_BYTES:
            self.flush()
        return starts

    def flush(self) -> None:
        """Append the record that vouches for what was appended.

        Raises:
            OSError: If it cannot be written; a later call tries again.
        """
        if not self._digests or self._forked:
            return
        spans = tuple(
            Span(start, end - start, hash_.intdigest())
            for start, end, hash_ in zip(self._starts, self._source.ends, self._hashes, strict=True)
        )
        record = Block(self.number, spans, self._digests, np.concatenate(self._lengths)).pack(
            places.checksum_seed(self._folder)
        )
        _write([self._index], [self._source.index_end], [record])
        self._source.index_end += len(record)
        self._begin_block()

    def close(self) -> None:
        """Flush, and let others have the files.

        Raises:
            OSError: If the record cannot be written.
        """
        if self._forked:  # the files and the lock are the parent's
            return
        try:
            self.flush()
        finally:
            self.release()

    def release(self) -> None:
        """Let others have the files, without a record of what was not flushed."""
        for file in self._files:
            file.close()
        self._lock.release()


def _write(files: Sequence[BinaryIO], begins: Sequence[int], values: Sequence[bytes | memoryview]) -> None:
    """Write to the ends of files, all or nothing."""
    try:
        for file, begin, value in zip(files, begins, values, strict=True):
            file.seek(begin)
            rest = memoryview(value)
            while rest:  # the system takes at most 2 GiB at once
                rest = rest[file.write(rest) :]
    except BaseException:
        for file, begin in zip(files, begins, strict=True):
            file.truncate(begin)
        raise
