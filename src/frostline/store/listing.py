"""The stores of a folder: what they are for, whether they are sound, and giving their room back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from frostline.errors import StoreError
from frostline.store import folder as places
from frostline.store.disk import DiskBacking
from frostline.store.header import Header, discard, read_header
from frostline.store.packed import StoredStream
from frostline.store.spec import StoreKey, dtype_name


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store says of itself.

    Attributes:
        name: Its folder's name: the first 32 hex digits of its key's digest.
        model: The model's name, as far as it is known.
        boundary: Where the activations were taken.
        dtype: What floats are stored as, such as ``float32``; of streams that differ, each once.
        rows: Rows that its index names.
        bytes: Size of its files.
        complete: Whether all the rows that it was made for are there.
        created: When it was begun, in UTC, ISO 8601.
        fault: What is wrong with it at first sight; nothing if it is sound.
    """

    name: str
    model: str = ""
    boundary: str = ""
    dtype: str = ""
    rows: int = 0
    bytes: int = 0
    complete: bool = False
    created: str = ""
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The store as plain values."""
        return asdict(self)

    @property
    def age_in_seconds(self) -> float | None:
        """How long ago it was begun; None where it does not say."""
        with suppress(ValueError, TypeError, OverflowError):
            return (datetime.now(UTC) - datetime.fromisoformat(self.created)).total_seconds()
        return None


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading all of a store found.

    Attributes:
        name: The store's name.
        blocks: Blocks that its index names.
        bytes: Size of its files.
        faults: What is damaged.
    """

    name: str
    blocks: int
    bytes: int
    faults: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self) | {"faults": list(self.faults)}


def stores_in(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The stores of a folder, or some of them.

    Args:
        folder: The folder of stores; it may be missing.
        names: Beginnings of their names, each of one store; none for all.

    Raises:
        StoreError: If a name is that of no store or of several, or the folder cannot be read.
    """
    try:
        found = sorted(
            path
            for path in (folder.iterdir() if folder.exists() else ())
            if places.FOLDER_NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        )
    except OSError as error:
        raise StoreError(f"'{folder}' cannot be read: {error.strerror}.\nName a folder of stores.") from None
    chosen = []
    for name in names:
        matches = [path for path in found if name and path.name.startswith(name)]
        if len(matches) != 1:
            raise StoreError(
                f"'{name}' is the name of {len(matches) or 'no'} {'stores' if matches else 'store'} in '{folder}'."
                "\nSee: frostline store list"
            )
        chosen += matches
    return list(dict.fromkeys(chosen)) if names else found


def describe(store: Path) -> StoreInfo:
    """Read what a store says of itself; its data is not read."""
    size = places.size_on_disk(store)
    try:
        header, backing = _open(store)
    except StoreError as error:
        return StoreInfo(store.name, bytes=size, fault=str(error))
    rows = len({digest for block in backing.load() for digest in block.digests})
    completed = backing.completed_rows
    return StoreInfo(
        name=store.name,
        model=header.about.get("model", ""),
        boundary=header.key.boundary,
        dtype=_dtypes(header),
        rows=rows,
        bytes=size,
        complete=completed is not None and completed <= rows,
        created=header.created,
        fault="; ".join(backing.faults),
    )


def _dtypes(header: Header) -> str:
    floats = [stream for stream in header.streams if stream.dtype.is_floating_point]
    return ", ".join(dict.fromkeys(dtype_name(StoredStream(stream, header.dtype).dtype) for stream in floats))


def _open(store: Path) -> tuple[Header, DiskBacking]:
    try:
        header = read_header(store)
    except FileNotFoundError:
        raise StoreError("it has no header") from None
    if header.key.digest()[: places.FOLDER_DIGITS] != store.name:
        raise StoreError("its header is another store's")
    return header, DiskBacking(store, [StoredStream(stream, header.dtype) for stream in header.streams], writer=0)


def verify(store: Path) -> Verification:
    """Compare all data of a store with its checksums."""
    size = places.size_on_disk(store)
    try:
        _, backing = _open(store)
    except StoreError as error:
        return Verification(store.name, 0, size, (str(error),))
    blocks = backing.load()
    damaged = [
        f"block {number + 1:,} of {len(blocks):,} ({len(block.digests):,} rows, written by writer {block.segment})"
        for number, block in enumerate(blocks)
        if not backing.intact(block)
    ]
    return Verification(store.name, len(blocks), size, (*backing.faults, *damaged))


def clear(store: Path) -> int:
    """Delete a store; returns the bytes that were freed.

    Raises:
        StoreError: If a process writes to it.
        OutputError: If it cannot be deleted.
    """
    with places.writing(store):
        if places.in_use(store):
            raise StoreError(f"A process writes to the store '{store}'.\nWait for it to end.")
        freed = discard(places.own_files(store))
        (store / places.LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # files of others stay, and their folder with them
            store.rmdir()
    return freed


def why_new(folder: Path, key: StoreKey, model: str) -> str | None:
    """Why no store of a folder serves a key, in words: what distinguishes it from the nearest one of the same model.

    Args:
        folder: The folder of stores.
        key: What is wanted.
        model: The model's name, as stores are told it.

    Returns:
        Such as ``the prefix's weights differ (store 0f3a9c51d2e7)``; None if one serves it, or the model has none.
    """
    nearest: tuple[int, str] | None = None
    for store in stores_in(folder):
        if store.name == key.digest()[: places.FOLDER_DIGITS]:
            return None
        with suppress(StoreError, OSError):
            header = read_header(store)
            if header.about.get("model") != model:
                continue
            differences = key.differences(header.key)
            words = f"{', '.join(differences)} (store {store.name[:12]})"
            nearest = min(nearest or (len(differences), words), (len(differences), words))
    return None if nearest is None else nearest[1]
