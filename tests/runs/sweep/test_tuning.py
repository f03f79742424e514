from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frostline.runs.sweep.depths import Depth
from frostline.runs.sweep.trial import Trial, TrialResult
from frostline.runs.sweep.tuning import rates_around, rungs, tuned_rates

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD, TOP = Depth("backbone", "all but the head", 0), Depth("embeddings, layers[0]", "embeddings, layers[0]", 1)


def test_rates_around_the_usual_one() -> None:
    assert rates_around(3e-4) == pytest.approx((1e-4, 3e-4, 9e-4))


def test_rounds_of_successive_halving() -> None:
    assert list(rungs(3, halves=False)) == [(3, 1.0)]
    assert list(rungs(2, halves=True)) == [(2, 0.5)]
    assert list(rungs(3, halves=True)) == [(3, 0.25), (2, 0.5)]
    assert list(rungs(8, halves=True)) == [(8, 0.125), (4, 0.25), (2, 0.5)]


class Runs:
    """Trials whose figure is the nearer to 1 the nearer the rate is to one of them, on half of the rows or more."""

    def __init__(self, best: float, early: float | None = None) -> None:
        self.best, self.early = best, best if early is None else early
        self.done: list[Trial] = []

    def __call__(self, trials: Sequence[Trial]) -> list[TrialResult]:
        self.done += trials
        return [self._result(trial) for trial in trials]

    def _result(self, trial: Trial) -> TrialResult:
        best = self.best if trial.share >= 0.5 else self.early
        assert trial.learning_rate is not None
        value = 1 - abs(trial.learning_rate - best)
        return TrialResult(trial, {"macro_f1": value, "loss": 1 - value}, 1.0, None, 1, 2)


def tuned(rates: Sequence[float], runs: Runs, *, halves: bool = False) -> float:
    return tuned_rates({HEAD: rates}, 7, runs, figure, halves=halves)[HEAD]


def figure(result: TrialResult) -> float:
    return result.metrics["macro_f1"]


def test_the_best_rate_is_chosen_on_the_part_for_tuning() -> None:
    runs = Runs(0.3)
    assert tuned((0.1, 0.3, 0.9), runs) == 0.3
    assert [(trial.part, trial.share, trial.seed) for trial in runs.done] == [("tuning", 1.0, 7)] * 3


def test_halving_gives_the_better_half_more_rows() -> None:
    runs = Runs(0.3, early=0.1)
    assert tuned((0.9, 0.3, 0.1), runs, halves=True) == 0.3
    assert [(trial.learning_rate, trial.share) for trial in runs.done] == [
        *((0.9, 0.25), (0.3, 0.25), (0.1, 0.25)),
        *((0.1, 0.5), (0.3, 0.5)),
    ]


def test_each_round_runs_the_trials_of_all_depths_together() -> None:
    together: list[int] = []
    runs = Runs(0.3)

    def counting(trials: Sequence[Trial]) -> list[TrialResult]:
        together.append(len(trials))
        return runs(trials)

    rates = {TOP: (0.9, 0.3, 0.1), HEAD: (0.3, 0.2, 0.6)}
    assert tuned_rates(rates, 7, counting, figure, halves=True) == {TOP: 0.3, HEAD: 0.3}
    assert together == [6, 4]


def test_of_equal_figures_the_lower_loss_decides() -> None:
    assert tuned_rates({HEAD: (0.1, 0.3, 0.9)}, 7, Runs(0.9), lambda result: 0.5, halves=False) == {HEAD: 0.9}


def test_one_rate_is_not_tried() -> None:
    runs = Runs(0.3)
    assert tuned((0.1, 0.1), runs) == 0.1
    assert not runs.done
