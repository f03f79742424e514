from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import timing
from benchmarks.row import rows_named
from tests.benchmarks.measured import MEASUREMENT

if TYPE_CHECKING:
    from benchmarks.results import Measurement

(TOP2,) = rows_named("top2")
(PREFIX,) = rows_named("prefix")


def test_sides_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run_once(row: str, side: str, **_: object) -> Measurement:
        ran.append(f"{row} {side}")
        return MEASUREMENT

    monkeypatch.setattr(timing, "run_once", run_once)
    told: list[str] = []
    found = timing.alternate(TOP2, repeats=2, rows=None, threads=1, on_run=told.append)
    assert ran == ["top2 ours", "top2 theirs"] * 2
    assert told == ["top2 1/2 ours", "top2 1/2 theirs", "top2 2/2 ours", "top2 2/2 theirs"]
    assert len(found) == 2
    (alone,) = timing.alternate(PREFIX, repeats=1, rows=None, threads=1, on_run=told.append)
    assert alone.theirs is None


def test_a_run_that_fails_shows_its_last_lines() -> None:
    with pytest.raises(timing.RunFailedError, match=r"The run of 'nothing' \(ours\) ended with status 1:\n(?s:.*)Stop"):
        timing.run_once("nothing", "ours", rows=None, threads=1)
