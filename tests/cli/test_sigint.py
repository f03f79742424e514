"""Ctrl-C while something is imported is heeded once that is done."""

from __future__ import annotations

import importlib
import signal
import time
from typing import TYPE_CHECKING

import pytest

from frostline.cli.sigint import Patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIBRARY = """
import signal
signal.raise_signal(signal.SIGINT)
signal.raise_signal(signal.SIGINT)
loaded = True
"""


@pytest.fixture(autouse=True)
def _own_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    Patient().install()
    yield
    signal.signal(signal.SIGINT, before)


def test_an_import_is_done_before_it_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library_that_loads.py").write_text(_LIBRARY, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    library = importlib.import_module("library_that_loads")
    assert library.loaded
    with pytest.raises(KeyboardInterrupt):
        _wait(20)
    _wait(0.2)  # two that came too early are one


def _wait(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)


def test_elsewhere_it_is_heeded_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Patient().install()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
