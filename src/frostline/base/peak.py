"""Peak resident memory of a block, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """What was found when the block has ended; None where the system does not say.

    Attributes:
        bytes: The highest resident memory of the process in the block.
        rise: The same above what was resident as the block began; 0 where it never was.
    """

    bytes: int | None = None
    rise: int | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch the peak of a block; the kernel's own mark is set back as it begins."""
    peak = Peak()
    try:
        (_PROCESS / "clear_refs").write_text("5")
        start = _resident("VmRSS")
    except OSError:  # not Linux, or not allowed
        yield peak
        return
    yield peak
    peak.bytes = _resident("VmHWM")
    peak.rise = max(0, peak.bytes - start)  # both are estimates of the kernel's, proc(5) says


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"the kernel does not tell {name}")
    return int(found[1]) * 1024


@contextmanager
def not_collected() -> Iterator[None]:
    """Have garbage looked for in what is made in a block only: looking through all libraries takes part of a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def freed() -> None:
    """Give memory that nothing uses any more back to the system, so that the next peak is that of a block alone."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another system, or another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
