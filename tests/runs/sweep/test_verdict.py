"""What is said of made-up rows: never more than the seeds show."""

from __future__ import annotations

import pytest

from frostline.runs.sweep.interval import Interval
from frostline.runs.sweep.verdict import finding, verdict
from tests.runs.sweep.rows import rows

FULL = [80.0, 81.0, 80.5]


@pytest.mark.parametrize(
    ("differences", "found"),
    [
        ([-7.0, -7.2, -6.9], "loses"),
        ([2.0, 2.2, 1.9], "gains"),
        ([0.1, -0.2, 0.1], "even"),
        ([-5.0, 5.0, 0.0], "unclear"),  # it may lose much, or gain
        ([-0.9], "unclear"),
    ],
)
def test_what_a_difference_shows(differences: list[float], found: str) -> None:
    assert finding(Interval.of(differences)) == found


def test_the_fastest_that_loses_nothing_is_named_and_what_the_deepest_costs() -> None:
    said = verdict(rows(nothing=(FULL, 29), low=([80.1, 80.9, 80.4], 20), middle=([80.0, 80.9, 80.6], 10),
                        head=([73.0, 74.1, 73.2], 3)))  # fmt: skip
    assert said == (
        "Freezing middle costs nothing that 3 seeds can show (+0.0 ± 0.2 points) and trains 2.9 times faster; "
        "freezing head loses 7.1 ± 0.5 points."
    )


def test_a_gain_is_said_to_be_one() -> None:
    said = verdict(rows(nothing=(FULL, 20), low=([82.0, 83.1, 82.5], 10)))
    assert said.startswith("Freezing low gains (+2.0 ± 0.1 points) and trains 2.0 times faster")


def test_where_all_lose_nothing_is_to_be_frozen() -> None:
    said = verdict(rows(nothing=(FULL, 20), low=([78.0, 79.1, 78.5], 10), head=([70.0, 71.0, 70.4], 2)))
    assert said == "Do not freeze: each depth loses; the least is 2.0 ± 0.1 points, by freezing low."


def test_where_seeds_scatter_nothing_is_said() -> None:
    said = verdict(rows(nothing=([80, 70, 75], 20), low=([70, 80, 74], 10), head=([78, 72, 70], 2)))
    assert said == "3 seeds do not tell whether freezing costs anything: train everything, or give more seeds."


def test_what_is_unclear_is_said_beside_what_is_clear() -> None:
    said = verdict(rows(nothing=(FULL, 20), low=([80.1, 81.0, 80.4], 10), head=([85.0, 76.0, 80.0], 2)))
    assert "costs nothing that 3 seeds can show" in said
    assert "of freezing head it cannot be told: the difference is between -" in said


def test_what_is_hardly_faster_is_not_recommended() -> None:
    said = verdict(rows(nothing=(FULL, 20), low=(FULL, 19)))
    assert said == "Do not freeze for speed: what loses nothing that shows is hardly faster."


def test_one_seed_makes_nothing_certain() -> None:
    said = verdict(rows(nothing=([80], 20), low=([81], 10), head=([72], 2)))
    assert said == (
        "One seed shows no noise, so nothing is certain: freezing low came out best of what freezes (+1.0 points, 2.0 "
        "times faster), head fastest (-8.0 points, 10.0 times)."
    )
