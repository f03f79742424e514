from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results import Repeat, Spread, load, result_of, save
from benchmarks.row import rows_named
from benchmarks.wording import line
from tests.benchmarks.measured import MEASUREMENT, repeat, result

(TOP2,) = rows_named("top2")
(MEMORY,) = rows_named("memory")
(PREFIX,) = rows_named("prefix")


def test_the_spread_is_median_least_and_greatest() -> None:
    assert Spread.of([3.0, 1.0, 2.5]) == Spread(2.5, 1.0, 3.0)
    assert Spread.of([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)


def test_a_speed_is_the_peers_seconds_by_ours() -> None:
    found = result_of(TOP2, [repeat(2.0, 10.0), repeat(2.0, 6.0), repeat(4.0, 16.0)], 2)
    assert found["ratio"] == {"median": 4.0, "least": 3.0, "most": 5.0}
    assert found["met"] is True, "a target is reached at its value"
    assert found["of_limit"] == {"median": 2.0, "least": 2.0, "most": 4.0}
    assert (found["ours"]["seconds"], found["theirs"]["seconds"]) == (2.0, 10.0)
    assert len(found["repeats"]) == 3


def test_memory_is_our_rise_by_theirs() -> None:
    theirs = replace(MEASUREMENT, rise_bytes=MEASUREMENT.rise_bytes and 2 * MEASUREMENT.rise_bytes)
    found = result_of(MEMORY, [Repeat(MEASUREMENT, theirs)], 2)
    assert (found["ratio"]["median"], found["met"]) == (0.5, True)
    with pytest.raises(ValueError, match="does not tell the peak memory"):
        result_of(MEMORY, [Repeat(MEASUREMENT, replace(theirs, rise_bytes=None))], 2)


def test_a_share_is_the_limits_seconds_by_ours() -> None:
    found = result_of(PREFIX, [repeat(2.0, None)], 2)
    assert (found["ratio"]["median"], found["met"], found["theirs"]) == (0.5, False, None)
    assert "2.00 s (800 tokens/s)" in line(found)


def test_a_kept_result_comes_back(tmp_path: Path) -> None:
    kept = result(TOP2, 5.0)
    file = save(kept, tmp_path)
    assert file.name == "top2.json"
    assert load("top2", tmp_path) == json.loads(json.dumps(kept))
    assert load("top1", tmp_path) is None


def test_a_result_names_no_host_and_no_user() -> None:
    import platform

    text = json.dumps(result(TOP2, 5.0))
    assert platform.node() not in text
    assert str(Path.home()) not in text


def test_a_result_in_one_line() -> None:
    text = line(result(TOP2, 5.0, 3.0, 4.5))
    for part in ("top2", "4.50 (3.00–5.00)", "target ≥ 4, met", "2.00 s against 9.00 s", "accuracy 0.750 / 0.500"):
        assert part in text
    assert "2.0 x the limit" in text
    assert "64 rows of made-up texts" in text
