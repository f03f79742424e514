"""Memory that is kept between steps."""

from __future__ import annotations

import ctypes
import platform
import resource
from pathlib import Path

import pytest
import torch

from frostline.engine.kernels.heap import kept_heap

_BLOCKS, _VALUES = 8, 16 * 2**20 // 4  # 128 MiB, more than glibc keeps by itself
_WARM_UP = 5  # a block that is aligned takes a little more, so that the first ones lie elsewhere at times
_PAGES = 128 * 2**20 // resource.getpagesize()

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def _step() -> int:
    """Pages that the process was given while blocks were filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(_VALUES).fill_(1.0) for _ in range(_BLOCKS)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])


@on_glibc
def test_the_next_step_has_the_memory_of_the_last_one() -> None:
    with kept_heap():
        for _ in range(_WARM_UP):
            _step()
        again = _step()
    assert again < _PAGES // 4


@on_glibc
def test_what_is_free_goes_back_at_the_end() -> None:
    before = _resident()
    with kept_heap():
        _step()
        kept = _resident() - before
    left = _resident() - before
    assert kept > _PAGES * 0.8
    assert left < _PAGES * 0.2


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("a library was asked for"))
    with kept_heap():
        assert torch.ones(2).sum() == 2
