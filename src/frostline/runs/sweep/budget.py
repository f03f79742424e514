"""How much of a sweep fits into its budget, reckoned from the runs that are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from frostline.runs.sweep.depths import Depth
from frostline.runs.sweep.tuning import rungs

Way = Literal["whole", "halved", "none"]


def weight(depth: Depth) -> float:
    """About how long a run of a depth takes, in runs of one layer: what trains, and the rest that each run has."""
    return 1.0 + depth.layers


@dataclass(frozen=True, slots=True)
class Budget:
    """The time that a sweep should take.

    Attributes:
        seconds: So long; None for as long as it takes.
        depths: What is compared.
        tuned: Those of them for which a learning rate is chosen.
        rates: How many there are to choose from at each.
        seeds: How often each depth is to be trained.
        part: Share of the training rows that tuning trains on.
    """

    seconds: float | None
    depths: Sequence[Depth]
    tuned: Sequence[Depth]
    rates: int
    seeds: int
    part: float

    @property
    def round(self) -> float:
        """Training each depth once, in runs of one layer."""
        return sum(map(weight, self.depths))

    def tuning(self, way: Way) -> float:
        """Choosing the rate of each depth, in runs of one layer."""
        if way == "none" or self.rates == 1:
            return 0.0
        trials = sum(size * share for size, share in rungs(self.rates, halves=way == "halved"))
        return sum(map(weight, self.tuned)) * self.part * trials

    def way_to_tune(self, unit: float) -> Way:
        """How the rates are chosen: all that is asked for, with successive halving and one seed at least, or not.

        Args:
            unit: Seconds of a run of one layer, as measured.
        """
        if self.seconds is None or unit * (self.tuning("whole") + self.seeds * self.round) <= self.seconds:
            return "whole"
        return "halved" if unit * (self.tuning("halved") + self.round) <= self.seconds else "none"

    def fits(self, spent: float, seconds: float) -> bool:
        """Whether something more of so many seconds fits."""
        return self.seconds is None or spent + seconds <= self.seconds
