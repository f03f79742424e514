"""Files and folders that appear complete or not at all, and the error for a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from frostline.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def room_on_disk(place: Path, *, can_resume: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn a full disk, in whatever form a library reports it, into an error that says so.

    Args:
        place: What is written.
        can_resume: Tells whether what is there by then can be gone on with.

    Raises:
        OutputError: If a block of code found no room.
    """
    try:
        yield
    except Exception as error:
        if not is_no_room(error):
            raise
        mend = "go on with --resume" if can_resume() else "run this again"
        raise OutputError(
            f"There is no room left to write '{place}' ({_free(place)} free).\nMake room, then {mend}."
        ) from error


def is_no_room(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        # safetensors and torch report the operating system's words only.
        if any(os.strerror(number) in str(error) for number in _NO_ROOM):
            return True
        error = error.__cause__ or error.__context__
    return False


def _free(place: Path) -> str:
    while not place.exists() and place != place.parent:
        place = place.parent
    return f"{shutil.disk_usage(place).free / 1e6:,.0f} MB"


def _refuse_zero_byte(place: Path) -> None:
    if "\0" in str(place):
        raise OutputError(f"{str(place)!r} cannot be written: it holds a zero byte.\nName another place.")


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield a path to write to; when it is written, it takes the place of `file`.

    Raises:
        OutputError: If it cannot be written.
    """
    _refuse_zero_byte(file)
    if file.is_dir():
        raise OutputError(f"'{file}' is a folder.\nName a file.")
    temporary = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with room_on_disk(file):
            yield temporary
            temporary.replace(file)
    except OSError as error:
        raise OutputError(f"'{file}' cannot be written: {error.strerror or error}.") from None
    finally:
        with suppress(OSError):  # not there, or no place where a file could be
            temporary.unlink()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when it is filled, it becomes `target`.

    Raises:
        OutputError: If something is there already, or it cannot be written.
    """
    _refuse_zero_byte(target)
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise OutputError(f"'{target}' is not a folder.\nName a new one.")
        if target.is_dir() and any(target.iterdir()):
            raise OutputError(f"The folder '{target}' is in use.\nName a new one.")
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"'{target}' cannot be written: {error.strerror or error}.\nName another place.") from None
    try:
        with room_on_disk(target):
            yield staged
            mask = os.umask(0)
            os.umask(mask)
            staged.chmod(0o777 & ~mask)
            try:
                staged.rename(target)
            except OSError as error:
                raise OutputError(f"'{target}' cannot be written: {error.strerror}.\nName another place.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
