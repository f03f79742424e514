from __future__ import annotations

import pytest

from frostline.runs.sweep.interval import Interval


def test_the_interval_is_students() -> None:
    found = Interval.of([1.0, 2.0, 3.0])
    # t(0.975, 2) is 4.3027 in every table; s is 1.
    assert found.mean == 2
    assert found.half == pytest.approx(4.3027 / 3**0.5, abs=1e-4)
    assert found.low == pytest.approx(2 - 2.4841, abs=1e-3)
    assert found.high == pytest.approx(2 + 2.4841, abs=1e-3)


def test_one_value_has_no_interval() -> None:
    found = Interval.of([0.7])
    assert (found.mean, found.low, found.high, found.half) == (0.7, None, None, None)


def test_differences_are_taken_seed_by_seed() -> None:
    # Seeds differ by far more than the two do within a seed.
    one, other = Interval.of([0.60, 0.70, 0.80]), Interval.of([0.61, 0.71, 0.81])
    difference = one.minus(other)
    assert difference.values == pytest.approx((-1, -1, -1))
    assert difference.half == pytest.approx(0, abs=1e-9)
    assert one.half is not None
    assert one.half > 0.2
