"""Making a store whole again: what is intact of damaged files is written anew, and the files are deleted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from frostline.errors import StoreError
from frostline.store import folder as places
from frostline.store.writer import claim
from frostline.store.writer_files import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from frostline.store.blocks import Block
    from frostline.store.packed import StoredStream


def mend(folder: Path, streams: Sequence[StoredStream], number: int) -> None:
    """Move what is intact of one writer's files into files of a free number, and delete them.

    They stay as they are where another process writes to them, where there is no room for the copy, and where they
    are no plain files. Nothing is changed in place: a process that has them open reads on, and a kill leaves the old
    files, or both until the next time.

    Args:
        folder: The store's folder.
        streams: Its streams.
        number: The writer's number.
    """
    from filelock import FileLock, Timeout

    with suppress(OSError, StoreError, Timeout):
        if number not in places.writers(folder):
            return
        with FileLock(places.writer_lock(folder, number), blocking=False):
            source = Source(folder, streams, number)
            intact = [block for block in source.load() if source.intact(block)]
            if source.has_dead:  # otherwise another process was first
                held = _held(folder, streams, number)
                wanted = [block for block in intact if not held.issuperset(block.digests)]
                if wanted:
                    _copy(folder, streams, source, wanted)
                _delete(folder, streams, number)


def _held(folder: Path, streams: Sequence[StoredStream], number: int) -> set[bytes]:
    """The rows of all other writers, those included that a kill left of an earlier copy."""
    others = (Source(folder, streams, other) for other in places.writers(folder) if other != number)
    return {digest for source in others for block in source.load() for digest in block.digests}


def _copy(folder: Path, streams: Sequence[StoredStream], source: Source, blocks: Sequence[Block]) -> None:
    taken = places.writers(folder)
    free = (number for number in range(places.MOST_WRITERS) if number not in taken)
    writer = claim(folder, streams, free, lambda number: Source(folder, streams, number))
    if writer is None:
        raise StoreError("There is no free number.")
    try:
        for block in blocks:
            raw = [
                source.data(place)[span.start * stream.element_bytes :][: span.elements * stream.element_bytes]
                for place, (span, stream) in enumerate(zip(block.spans, streams, strict=True))
            ]
            writer.append(block.digests, block.lengths, raw)
        writer.flush()
    except BaseException:
        _delete(folder, streams, writer.number)
        raise
    finally:
        writer.release()


def _delete(folder: Path, streams: Sequence[StoredStream], number: int) -> None:
    """Delete one writer's files, the index first: data without a record is not read."""
    files = [places.index_file(folder, number), *(places.data_file(folder, number, at) for at in range(len(streams)))]
    for file in files:
        file.unlink(missing_ok=True)
