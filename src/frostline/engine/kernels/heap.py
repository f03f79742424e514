"""Memory that one step gives back and the next asks for again, kept by the process in between.

glibc hands what is free at the end of its heap back to the system, which has to clear each page of it anew for the next
step. While a heap is kept, it stays as large as it once was (mallopt(3)). Blocks of more than 32 MiB are the system's
at all times, so that one that is freed leaves no hole.
"""

from __future__ import annotations

import ctypes
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1  # mallopt takes an int
_LARGEST_BLOCK = 32 * 2**20  # the most that glibc takes; it arrives there by itself as large blocks are freed


@contextmanager
def kept_heap() -> Iterator[None]:
    """Keep freed memory for the process; what is free at the end goes back to the system.

    Does nothing where the C library is another one.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    library.mallopt(_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)
        library.malloc_trim(0)


def trim_heap() -> None:
    """Give what is free now back to the system, of a kept heap too, after work that is done once.

    Does nothing where the C library is another one.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
