"""The learning rate of each depth, chosen on a part of the training rows; by successive halving if time is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from frostline.runs.sweep.depths import Depth
from frostline.runs.sweep.trial import Trial, TrialResult

FACTORS = (1 / 3, 1.0, 3.0)  # of the usual rate


def rates_around(usual: float) -> tuple[float, ...]:
    """The rates to choose from where none are given, to two digits."""
    return tuple(float(f"{factor * usual:.2g}") for factor in FACTORS)


def rungs(count: int, *, halves: bool) -> Iterator[tuple[int, float]]:
    """Tell how many rates are tried on which share of the rows, round by round.

    Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): each round the worse half goes, and the rest
    gets twice the rows. The last round decides between two, on half of the rows; the one left would have had all.

    Args:
        count: How many rates there are.
        halves: Whether the worse half goes after each round; if not, all are tried on all rows.
    """
    if not halves:
        yield count, 1.0
        return
    sizes = [count]
    while sizes[-1] > 2:
        sizes.append(-(-sizes[-1] // 2))
    for place, size in enumerate(sizes):
        yield size, 0.5 ** (len(sizes) - place)


def tuned_rate(
    depth: Depth,
    rates: Sequence[float],
    seed: int,
    run: Callable[[Trial], TrialResult],
    better: Callable[[TrialResult], float],
    *,
    halves: bool,
) -> float:
    """Choose the rate of one depth.

    Args:
        depth: The depth.
        rates: To choose from; one alone is not tried.
        seed: Of the trials.
        run: Runs a trial.
        better: The figure of which more is better; where two are equal, the lower loss decides.
        halves: As for `rungs`.
    """
    left = list(dict.fromkeys(rates))
    if len(left) == 1:
        return left[0]
    for size, share in rungs(len(left), halves=halves):
        tried = {rate: run(Trial(depth.freeze, rate, seed, "tuning", share, depth.preset)) for rate in left[:size]}
        left = sorted(tried, key=lambda rate: (better(tried[rate]), -tried[rate].metrics["loss"]), reverse=True)
    return left[0]
