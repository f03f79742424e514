from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from frostline.base import peak as module
from frostline.base.peak import freed, peak_memory

if TYPE_CHECKING:
    from pathlib import Path

_MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts it")
def test_a_peak_is_seen_after_it_went() -> None:
    freed()  # what goes on its own in the meantime would hide some of it
    with peak_memory() as peak:
        block = bytearray(64 * _MIB)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert peak.rise is not None
    assert 60 * _MIB < peak.rise < 80 * _MIB
    with peak_memory() as after:
        pass
    assert after.rise is not None
    assert after.rise < 10 * _MIB, "the mark was set back"


def test_other_systems_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROCESS", tmp_path / "none")
    with peak_memory() as peak:
        pass
    assert (peak.bytes, peak.rise) == (None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts it")
def test_a_peak_is_never_below_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([5000, 4000])  # as the block begins, and its peak
    monkeypatch.setattr(module, "_resident", lambda _name: next(told))
    with peak_memory() as peak:
        pass
    assert (peak.bytes, peak.rise) == (4000, 0)
