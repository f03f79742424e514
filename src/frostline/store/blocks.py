"""The index of a store's data: one record per block of rows, appended after the block's data.

A record, little-endian: the magic, the number of rows and a CRC-32 of both; per stream the first element, the number of
elements and the XXH3 of their bytes; 16 bytes of digest per row; per row and stream the number of elements in 4 bytes;
the XXH3 of all that, seeded by the store's key, so that a record of another store is none of this one.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from frostline.store.row_index import DIGEST_BYTES

_MAGIC = b"FLB2"
_START = struct.Struct("<4sI")
_HEAD = struct.Struct("<4sII")
_SPAN = struct.Struct("<QQQ")
_CHECKSUM = struct.Struct("<Q")
MOST_ROWS = 1 << 16  # of a block


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a stream's data that belongs to a block; start and size in elements."""

    start: int
    elements: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that were written together.

    Attributes:
        segment: The number of the writer that wrote them.
        spans: Per stream, where the data lies.
        digests: One per row.
        lengths: Elements per row and stream, shape (rows, streams).
    """

    segment: int
    spans: tuple[Span, ...]
    digests: list[bytes]
    lengths: NDArray[np.int64]

    def pack(self, seed: int) -> bytes:
        """The block's record.

        Args:
            seed: Of its checksum, from the store's key.
        """
        start = _START.pack(_MAGIC, len(self.digests))
        parts = [start, struct.pack("<I", zlib.crc32(start))]
        parts += [_SPAN.pack(span.start, span.elements, span.checksum) for span in self.spans]
        parts += [*self.digests, self.lengths.astype("<u4").tobytes()]
        record = b"".join(parts)
        return record + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(record, seed))


@dataclass(frozen=True, slots=True)
class Scan:
    """What an index holds from some place on.

    Attributes:
        blocks: The whole records.
        end: Where the last of them ends, in bytes.
        damaged: Whether what follows is no record; a record of which the end is missing is no damage.
    """

    blocks: list[Block]
    end: int
    damaged: bool


def scan(file: BinaryIO, size: int, streams: int, segment: int, seed: int, begin: int = 0) -> Scan:
    """Read the records of an index, with distrust, up to the first that is not whole.

    Args:
        file: The index.
        size: Its size in bytes.
        streams: Streams of the store.
        segment: The writer whose index it is.
        seed: Of the checksums, from the store's key.
        begin: Where to start, in bytes.
    """
    blocks: list[Block] = []
    while size - begin >= _HEAD.size:
        file.seek(begin)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            break
        magic, rows, check = _HEAD.unpack(head)
        if magic != _MAGIC or check != zlib.crc32(head[: _START.size]) or not 0 < rows <= MOST_ROWS:
            return Scan(blocks, begin, damaged=True)
        rest = streams * _SPAN.size + rows * (DIGEST_BYTES + 4 * streams) + _CHECKSUM.size
        if begin + len(head) + rest > size:
            break
        block = _parse(head, file.read(rest), rows, streams, segment, seed)
        if block is None:
            return Scan(blocks, begin, damaged=True)
        blocks.append(block)
        begin += len(head) + rest
    return Scan(blocks, begin, damaged=False)


def _parse(head: bytes, rest: bytes, rows: int, streams: int, segment: int, seed: int) -> Block | None:
    record, checksum = head + rest[: -_CHECKSUM.size], rest[-_CHECKSUM.size :]
    if checksum != _CHECKSUM.pack(xxhash.xxh3_64_intdigest(record, seed)):
        return None
    at = _HEAD.size + streams * _SPAN.size
    spans = tuple(Span(*values) for values in _SPAN.iter_unpack(record[_HEAD.size : at]))
    digests = np.frombuffer(record, f"V{DIGEST_BYTES}", rows, at).tolist()
    lengths = np.frombuffer(record, "<u4", rows * streams, at + rows * DIGEST_BYTES).reshape(rows, streams)
    lengths = lengths.astype(np.int64)
    if lengths.sum(axis=0).tolist() != [span.elements for span in spans]:
        return None
    return Block(segment, spans, digests, lengths)
