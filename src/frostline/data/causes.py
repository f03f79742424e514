"""Finding the plain cause beneath a library's exception: a full disk, a forbidden file."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from frostline.data.messages import quoted, quoted_path
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_FULL_DISK_WORDS = ("no space left on device", "not enough disk space", "disk quota exceeded")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def cause_chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception, then what caused it, down to the first cause."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def system_error(error: BaseException, source: str) -> DataError | None:
    """Explains a full disk or a forbidden file anywhere in the chain of causes.

    Args:
        error: What was raised while ``source`` was read.
        source: What the user asked to read.

    Returns:
        The error to raise instead, or ``None`` if the cause is another one.
    """
    for cause in cause_chain(error):
        if not isinstance(cause, OSError):
            continue
        words = str(cause).casefold()
        if cause.errno in _FULL_DISK or any(phrase in words for phrase in _FULL_DISK_WORDS):
            return DataError(
                f"{quoted_path(source)}: no space left in the datasets cache, "
                f"{quoted_path(cache_folder())}.\n"
                "Free some space there, or set HF_DATASETS_CACHE to a folder with more."
            )
        if cause.errno in _FORBIDDEN:
            place = str(cause.filename or source)
            verb = "written" if place.startswith(cache_folder()) else "read"
            return DataError(
                f"{quoted_path(source)}: permission denied, {quoted_path(place)} cannot be {verb}."
                "\nChange its permissions"
                + (", or set HF_DATASETS_CACHE to a folder of yours." if verb == "written" else ".")
            )
    return None


def cache_folder() -> str:
    """Returns the folder in which ``datasets`` keeps what it has read."""
    from datasets import config

    return str(config.HF_DATASETS_CACHE)


def first_line(error: BaseException) -> str:
    """Returns the first line of the deepest cause's message, quoted and short."""
    deepest = list(cause_chain(error))[-1]
    text = next((line for line in str(deepest).splitlines() if line.strip()), "")
    return quoted(text.strip() or type(deepest).__name__, 160)
