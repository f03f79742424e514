"""A mean over seeds, and how far it may be from what more seeds would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of one figure over seeds, with Student's t-interval.

    mean ± t(0.975, n - 1) · s / sqrt(n), with s the standard deviation of the sample (n - 1 in its denominator): for
    figures that are about normally distributed. It tells of seeds only, not of other evaluation rows.

    Attributes:
        mean: Their mean.
        low: The lower end at a confidence of 95 %; None for a single value.
        high: The upper end, likewise.
        values: One per seed.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Reckon it.

        Args:
            values: One per seed, one at least.
        """
        given = tuple(map(float, values))
        mean = float(np.mean(given))
        if len(given) < 2:
            return cls(mean, None, None, given)
        from scipy.stats import t

        half = float(t.ppf((1 + CONFIDENCE) / 2, len(given) - 1)) * float(np.std(given, ddof=1)) / math.sqrt(len(given))
        return cls(mean, mean - half, mean + half, given)

    @property
    def half(self) -> float | None:
        """Half of its width; None for a single value."""
        return None if self.high is None else self.high - self.mean

    def minus(self, other: Interval) -> Interval:
        """The differences seed by seed, as far as both have them, in points (hundredths)."""
        return Interval.of([100 * (one - two) for one, two in zip(self.values, other.values, strict=False)])

    def to_dict(self) -> dict[str, Any]:
        """The interval as plain values."""
        return asdict(self) | {"values": list(self.values)}
