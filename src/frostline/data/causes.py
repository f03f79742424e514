"""Finding the plain cause beneath a library's exception: a full disk, a forbidden file."""

from __future__ import annotations

import errno

from frostline.data.messages import quoted
from frostline.errors import DataError, causes

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_FULL_DISK_WORDS = ("no space left on device", "not enough disk space", "disk quota exceeded")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def system_error(error: BaseException, source: str) -> DataError | None:
    """Explains a full disk or a forbidden file anywhere in the causes of what reading a source raised.

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
        if cause.errno in _FORBIDDEN:
            place = str(cause.filename or source)
            verb, mend = "read", ""
            if place.startswith(cache):
                verb, mend = "written", ", or set HF_DATASETS_CACHE to a folder of yours"
            return DataError(
                f"{source!r}: permission denied, {place!r} cannot be {verb}.\nChange its permissions{mend}."
            )
    return None


def first_line(error: BaseException) -> str:
    """Returns the first line of the deepest cause's message, quoted and short."""
    deepest = list(causes(error))[-1]
    text = next((line for line in str(deepest).splitlines() if line.strip()), "")
    return quoted(text.strip() or type(deepest).__name__, 160)
