"""The learning rate of each depth, chosen on a part of the training rows; by successive halving if time is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

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


def tuned_rates(
    rates: Mapping[Depth, Sequence[float]],
    seed: int,
    run: Callable[[Sequence[Trial]], Sequence[TrialResult]],
    better: Callable[[TrialResult], float],
    *,
    halves: bool,
) -> dict[Depth, float]:
    """Choose the rate of each depth; each round runs the trials of all depths together.

    Args:
        rates: To choose from, as many at each depth; one alone is not tried.
        seed: Of the trials.
        run: Runs trials.
        better: The figure of which more is better; where two are equal, the lower loss decides.
        halves: As for `rungs`.
    """
    left = {depth: list(dict.fromkeys(own)) for depth, own in rates.items()}
    count = max(map(len, left.values()))
    for size, share in rungs(count, halves=halves) if count > 1 else ():
        trials = {
            depth: [Trial(depth.freeze, rate, seed, "tuning", share, depth.preset) for rate in own[:size]]
            for depth, own in left.items()
        }
        found = {result.trial: result for result in run([trial for own in trials.values() for trial in own])}
        for depth, own in trials.items():
            tried = {trial.learning_rate: found[trial] for trial in own if trial.learning_rate is not None}
            left[depth] = sorted(
                tried, key=lambda rate: (better(tried[rate]), -tried[rate].metrics["loss"]), reverse=True
            )
    return {depth: own[0] for depth, own in left.items()}
