"""Files and folders that appear complete or not at all, and the error for a full disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TextIO

from frostline.errors import FrostlineError, OutputError, causes

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/\d+/fd")
_MOST_LINKS = 40  # that Linux follows


@contextmanager
def room_on_disk(place: Path, *, can_resume: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn a full disk, in whatever form a library reports it, into an error that says so.

    Args:
        place: What is written.
        can_resume: Tells whether what is there by then can be gone on with.

    Raises:
        OutputError: If a block of code found no room there or, as an error within says, in another place. What says
            already that reading found none passes unchanged.
    """
    try:
        yield
    except Exception as error:
        told = isinstance(error, FrostlineError) and not isinstance(error, OutputError)  # it names what is full itself
        if told or not is_no_room(error):
            raise
        within = error.full if isinstance(error, OutputError) else None
        full = place if within is None or _is_part(within, place) else within
        mend = "go on with --resume" if can_resume() else "run this again"
        said = OutputError(f"There is no room left to write '{full}' ({_free(full)} free).\nMake room, then {mend}.")
        said.full = full
        raise said from error


def _is_part(file: Path, place: Path) -> bool:
    """Whether a file lies in a folder, or in what stands beside it until it is complete (``NAME.partial``)."""
    whole = place.absolute()
    parts = {whole, whole.with_name(f"{whole.name}.partial")}
    return not parts.isdisjoint((file.absolute(), *file.absolute().parents))


def is_no_room(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk is full."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _NO_ROOM)
        # safetensors and torch report the operating system's words only.
        or any(os.strerror(number) in str(cause) for number in _NO_ROOM)
        for cause in causes(error)
    )


def existing_folder(place: Path) -> Path:
    """The nearest folder that is there: the place itself, or one that is to hold it."""
    return next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())


def _free(place: Path) -> str:
    return f"{shutil.disk_usage(existing_folder(place)).free / 1e6:,.0f} MB"


def open_regular(file: Path) -> BufferedReader:
    """Open a file for reading; a link is followed.

    Raises:
        OSError: If it cannot be opened, or is no regular file: opening a pipe that nobody writes would wait for ever,
            and a device may have no end.
    """
    number = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(number, "rb")


def use_mask(folder: Path) -> None:
    """Give all files in a folder the mode that the umask leaves to new ones; safetensors makes them private."""
    mode = 0o666 & ~_mask()
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _refuse_zero_byte(place: Path) -> None:
    if "\0" in str(place):
        raise OutputError(f"{str(place)!r} cannot be written: it holds a zero byte.\nName another place.")


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield a path to write to; when it is written, it takes the place of `file`, or of what that links to.

    Raises:
        OutputError: If it cannot be written, or there is something that is no regular file.
    """
    _refuse_zero_byte(file)
    try:
        target = Path(os.path.realpath(file))
        there = _status(target)
    except OSError as error:
        raise _not_written(file, error) from None
    if there is not None and not stat.S_ISREG(there.st_mode):
        what = "a folder" if stat.S_ISDIR(there.st_mode) else "no regular file"
        raise OutputError(f"'{file}' is {what}.\nName a file.")
    temporary = target.with_name(f".{target.name}.partial")
    made = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        made = True
        with room_on_disk(file):
            yield temporary
            if there is not None:
                temporary.chmod(stat.S_IMODE(there.st_mode))
            temporary.replace(target)
    except OSError as error:
        raise _not_written(file, error) from None
    finally:
        if made:
            temporary.unlink(missing_ok=True)


@contextmanager
def output_text(file: Path) -> Iterator[TextIO]:
    """Yield a stream to write text to in UTF-8; a file appears complete or not at all.

    Raises:
        OutputError: If it cannot be written.
        BrokenPipeError: If the reader of a pipe has gone.
    """
    if not writes_through(file):
        with atomic_file(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        return
    try:
        descriptor = _descriptor(file)
        # Opened anew, a file behind a descriptor would be written from its start on.
        number = os.open(file, os.O_WRONLY) if descriptor is None else os.dup(descriptor)
        with room_on_disk(file), os.fdopen(number, "w", encoding="utf-8", newline="") as stream:
            yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _not_written(file, error) from None


def writes_through(file: Path) -> bool:
    """Whether a place only passes on what is written to it: a device, a pipe, a descriptor that is open already."""
    try:
        there = _status(file)
    except (OSError, ValueError):  # a loop of links, a zero byte
        return False
    special = there is not None and not (stat.S_ISREG(there.st_mode) or stat.S_ISDIR(there.st_mode))
    return special or _descriptor(file) is not None


def _status(file: Path) -> os.stat_result | None:
    """What a path leads to; None where there is nothing yet."""
    try:
        return file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _descriptor(file: Path) -> int | None:
    """The open descriptor of this process that a path such as ``/dev/stdout`` leads to; None for any other path."""
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(file.parent)
        if _DESCRIPTORS.fullmatch(folder) and file.name.isdecimal():
            return int(file.name) if folder in {"/dev/fd", f"/proc/{os.getpid()}/fd"} else None
        if not file.is_symlink():
            return None
        file = Path(folder) / file.readlink()
    return None


def _not_written(file: Path, error: OSError) -> OutputError:
    return OutputError(f"'{file}' cannot be written: {error.strerror or error}.")


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
            staged.chmod(0o777 & ~_mask())
            try:
                staged.rename(target)
            except OSError as error:
                raise OutputError(f"'{target}' cannot be written: {error.strerror}.\nName another place.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
