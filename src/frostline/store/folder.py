"""The files of a store on disk: their names, and opening them with distrust."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from frostline.base.files import room_on_disk
from frostline.errors import OutputError, StoreError

HEADER, COMPLETE, LOCK = "header.json", "complete", "store.lock"
MOST_WRITERS = 10_000
FOLDER_DIGITS = 32  # of the key, which a store's folder is named by
_SEED_DIGITS = 16  # 64 bits
FOLDER_NAME = re.compile(rf"[0-9a-f]{{{FOLDER_DIGITS}}}")
_INDEX = re.compile(r"w(\d{4})\.index")
_OURS = re.compile(rf"w\d{{4}}\.(index|lock|s\d{{4}}\.data)|\.?({HEADER}|{COMPLETE})(\.partial)?|{LOCK}")


def default_folder() -> Path:
    """Where stores lie: ``$FROSTLINE_STORE``, or ``frostline/store`` in the user's cache folder.

    Raises:
        StoreError: If there is no home folder.
    """
    named = os.environ.get("FROSTLINE_STORE")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(named or f"{cache}/frostline/store").expanduser()
    except RuntimeError:
        raise StoreError(f"'{named or cache}' needs a home folder, and there is none.\nSet FROSTLINE_STORE.") from None


def index_file(folder: Path, writer: int) -> Path:
    """The index of what one writer wrote."""
    return folder / f"w{writer:04}.index"


def data_file(folder: Path, writer: int, stream: int) -> Path:
    """What one writer wrote of one stream."""
    return folder / f"w{writer:04}.s{stream:04}.data"


def writer_lock(folder: Path, writer: int) -> Path:
    """The lock of the process that writes these files."""
    return folder / f"w{writer:04}.lock"


def checksum_seed(folder: Path) -> int:
    """The seed of the checksums of a store's records, from its key, of which the folder's name is the beginning."""
    return int(folder.name[:_SEED_DIGITS], 16)


def writers(folder: Path) -> list[int]:
    """The numbers of the writers that left something."""
    matches = (_INDEX.fullmatch(file.name) for file in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def own_files(folder: Path) -> list[Path]:
    """The files of a store; any others are not touched."""
    return sorted(file for file in folder.iterdir() if _OURS.fullmatch(file.name))


def size_on_disk(folder: Path) -> int:
    """The bytes of a store's files.

    Raises:
        StoreError: If the folder cannot be read.
    """
    try:
        return sum(file.lstat().st_size for file in own_files(folder))
    except OSError as error:
        raise StoreError(f"The store '{folder}' cannot be read: {error.strerror}.\nRun this again.") from None


def open_plain(file: Path, *, write: bool = False) -> BinaryIO:
    """Open a file without a buffer, for reading, or for reading and writing.

    Raises:
        StoreError: If it is a link, a folder or a device.
        OSError: If it cannot be opened.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(file.lstat().st_mode):
            raise StoreError(f"'{file.name}' is no plain file")
    flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(file, flags, 0o666), "r+b" if write else "rb", buffering=0)


def size_of(file: BinaryIO) -> int:
    """The size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def inode_of(file: BinaryIO) -> int:
    """What tells an open file from another one of its name, as long as it is open or mapped."""
    return os.fstat(file.fileno()).st_ino


def in_use(folder: Path) -> bool:
    """Whether some process writes to the store."""
    from filelock import FileLock, Timeout

    for file in own_files(folder):
        if file.suffix == ".lock" and file.name != LOCK:
            lock = FileLock(file)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return True
            lock.release()
    return False


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that names the store's folder.

    Raises:
        OutputError: If the disk is full, or the folder cannot be written.
    """
    try:
        with room_on_disk(folder):
            yield
    except OSError as error:
        raise OutputError(
            f"The store '{folder}' cannot be written: {error.strerror or error}.\nName another folder for it."
        ) from None
