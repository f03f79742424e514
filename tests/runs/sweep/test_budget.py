from __future__ import annotations

import pytest

from frostline.runs.sweep.budget import Budget
from frostline.runs.sweep.depths import Depth

DEPTHS = (Depth("", "nothing", 3), Depth("backbone", "all but the head", 0))  # 4 + 1 runs of one layer


@pytest.mark.parametrize(
    ("seconds", "way"),
    [
        (None, "whole"),
        (27.1, "whole"),  # 3 rates on 4/5 of the rows: 12; 3 seeds: 15
        (12.1, "halved"),  # (3 · 1/4 + 2 · 1/2) on 4/5: 7; one seed: 5
        (11.9, "none"),
    ],
)
def test_how_rates_are_chosen(seconds: float | None, way: str) -> None:
    budget = Budget(seconds, DEPTHS, DEPTHS, rates=3, seeds=3, part=0.8)
    assert budget.tuning("whole") == pytest.approx(12)
    assert budget.tuning("halved") == pytest.approx(7)
    assert budget.way_to_tune(unit=1.0) == way


def test_what_fits() -> None:
    assert Budget(None, DEPTHS, DEPTHS, 1, 1, 0.8).fits(1e9, 1e9)
    assert Budget(10, DEPTHS, DEPTHS, 1, 1, 0.8).fits(4, 6)
    assert not Budget(10, DEPTHS, DEPTHS, 1, 1, 0.8).fits(5, 6)


def test_what_is_not_tuned_takes_no_time_for_it() -> None:
    budget = Budget(None, (*DEPTHS, Depth("", "schedule lisa", 3, "lisa")), DEPTHS, rates=3, seeds=3, part=0.8)
    assert budget.tuning("whole") == pytest.approx(12)
    assert budget.round == 9
