"""Texts from a pipe, one per line."""

from __future__ import annotations

import os
import select
import stat
import sys
from itertools import islice
from typing import TYPE_CHECKING

from frostline.errors import DataError

if TYPE_CHECKING:
    from typing import IO

_MOST = 256 * 2**20  # bytes
_PATIENCE = 3.0  # seconds before it is said what is waited for


def is_piped() -> bool:
    """Whether standard input is a pipe or a file, not a terminal or nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or no file beneath
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def read_lines(limit: int | None = None) -> list[str]:
    """Read texts from standard input, one per line, in UTF-8.

    Args:
        limit: Lines at most, the first ones; no more are read.

    Raises:
        DataError: If there are none or too many, or a line is not UTF-8.
    """
    stream = sys.stdin.buffer
    _say_if_nothing_comes(stream)
    texts, size = [], 0
    for number, line in enumerate(islice(iter(lambda: stream.readline(_MOST), b""), limit), start=1):
        size += len(line)
        if size >= _MOST:
            raise DataError(
                f"More than {_MOST >> 20} MiB came from standard input.\n"
                "Write them to a table and give it with --data, or take a part with --limit."
            )
        try:
            texts.append(line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            raise DataError(f"Line {number} of standard input is not valid Unicode.\nGive it in UTF-8.") from None
    if not texts:
        raise DataError("Standard input is empty.\nGive texts, one per line.")
    return texts


def _say_if_nothing_comes(stream: IO[bytes]) -> None:
    try:
        ready, _, _ = select.select([stream], [], [], _PATIENCE)
    except (OSError, ValueError):  # not of this kind, or not on this system
        return
    if not ready:
        print("Waiting for texts from standard input, one per line.", file=sys.stderr)
