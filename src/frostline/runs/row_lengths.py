"""Lengths of rows, and the batches that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from frostline.engine.cost.batch_rows import Rows
from frostline.engine.token_layout import slots_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The logarithm's spread where only the mean is known: that of the lengths of movie reviews.
_SPREAD = 0.5
_SEED = 0
_TRIALS = 64  # batches among which a typical one is looked for


def drawn_lengths(rows: int, mean: float, limit: int | None) -> NDArray[np.int64]:
    """Draw lengths about a mean, log-normal, the same each time.

    Args:
        rows: How many.
        mean: Tokens on average.
        limit: Tokens of a row at most.

    Returns:
        int64, (rows,), each at least 1.
    """
    generator = np.random.default_rng(_SEED)
    drawn = np.exp(_SPREAD * generator.standard_normal(rows) - _SPREAD**2 / 2) * mean
    longest = np.inf if limit is None else limit
    lengths = np.clip(np.rint(drawn), 1, longest)
    for _ in range(20):  # what the limit cuts off, the others make up for, as far as they can
        missing = min(mean, longest) / lengths.mean()
        if abs(missing - 1) < 1e-3:
            break
        lengths = np.clip(np.rint(lengths * missing), 1, longest)
    return lengths.astype(np.int64)


def batches_of(lengths: NDArray[np.int64], batch_size: int) -> Rows:
    """Put rows into batches in a random order, as an epoch does, and count what they come to.

    Args:
        lengths: Tokens of each row, int64, (rows,).
        batch_size: Rows per step.
    """
    shuffled = np.random.default_rng(_SEED).permutation(lengths)
    starts = np.arange(0, len(shuffled), batch_size)
    tokens = np.add.reduceat(shuffled, starts)
    longest = np.maximum.reduceat(shuffled, starts)
    counts = np.diff(np.append(starts, len(shuffled)))
    return Rows(
        rows=len(lengths),
        tokens=int(lengths.sum()),
        squares=int((lengths.astype(np.float64) ** 2).sum()),
        padded=int((longest * counts).sum()),
        largest=int(tokens.max()),
        largest_padded=int((longest * counts).max()),
        batch_size=batch_size,
        steps=len(starts),
        counts=len({slots_for(int(count)) for count in np.unique(tokens)}),
    )


def typical_batch(lengths: NDArray[np.int64], batch_size: int) -> list[int]:
    """Lengths of the rows of a batch that is like the others: of some random ones, that nearest to the mean."""
    generator = np.random.default_rng(_SEED)
    size = min(batch_size, len(lengths))
    trials = [generator.choice(lengths, size, replace=False) for _ in range(_TRIALS)]
    tokens = lengths.mean() * size
    longest = np.mean([trial.max() for trial in trials])
    best = min(trials, key=lambda trial: abs(trial.sum() / tokens - 1) + abs(trial.max() / longest - 1))
    return [int(length) for length in best]
