"""Finding the plain cause beneath a library's exception: a full disk, a forbidden file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from frostline.data.messages import quoted
from frostline.errors import DataError, causes

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_FULL_DISK_WORDS = ("no space left on device", "not enough disk space", "disk quota exceeded")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def system_error(error: BaseException, source: str) -> DataError | None:
    """Explains a full disk, a forbidden file or a missing cache anywhere in the causes of what reading a source raised.

    Returns:
        The error to raise instead, or ``None`` if the cause is another one.
    """
    from datasets import config

    cache = str(config.HF_DATASETS_CACHE)
    for cause in causes(error):
        if not isinstance(cause, OSError):
            continue
        words = str(cause).casefold()
        if cause.errno in _FULL_DISK or any(phrase in words for phrase in _FULL_DISK_WORDS):
            return DataError(
                f"{source!r}: no space left in the datasets cache, {cache!r}.\n"
                "Free some space there, or set HF_DATASETS_CACHE to a folder with more."
            )
        place = str(cause.filename or source)
        if cause.errno in _FORBIDDEN | _NO_FOLDER and _keeps(cache, place, source, inside=cause.errno in _FORBIDDEN):
            reason = os.strerror(cause.errno or 0).lower()
            return DataError(
                f"{source!r}: the datasets cache, {cache!r}, cannot be written ({reason}: {place!r}).\n"
                "Set HF_DATASETS_CACHE to a folder of yours that can be."
            )
        if cause.errno in _FORBIDDEN:
            return DataError(f"{source!r}: permission denied, {place!r} cannot be read.\nChange its permissions.")
    return None


def _keeps(cache: str, place: str, source: str, *, inside: bool) -> bool:
    """Tells whether a place is the cache, a folder on the way to it or, where asked for, anything in it."""
    way, other = Path(cache).absolute(), Path(place).absolute()
    is_source = other == Path(source).expanduser().absolute()
    return not is_source and (way.is_relative_to(other) or (inside and other.is_relative_to(way)))


def first_line(error: BaseException) -> str:
    """Returns the first line of the deepest cause's message, quoted and short."""
    deepest = list(causes(error))[-1]
    text = next((line for line in str(deepest).splitlines() if line.strip()), "")
    return quoted(text.strip() or type(deepest).__name__, 160)
