"""How far a schedule has come: a pure function of steps, evaluations and norms of gradients."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# As transformers tells it of a loss; these are lower where they are better as well.
_LOWER = ("loss", "rmse", "mse", "mae", "error", "perplexity")


@dataclass(slots=True)
class Progress:
    """How far a schedule has come.

    Attributes:
        phase: Number of phases that are over.
        began: The step at which the current one began.
        best: The best value of its plateau's metric; None before an evaluation.
        waited: Evaluations since then.
        settled: Number of its layers that are frozen as settled.
        norms: Per layer, the sum of its gradient's norms since it was last looked at.
        before: Likewise, as it stood when it was last looked at; None before.
    """

    phase: int = 0
    began: int = 0
    best: float | None = None
    waited: int = 0
    settled: int = 0
    norms: list[float] = field(default_factory=list)
    before: list[float] | None = None

    def advance(self, step: int, lengths: Sequence[int | None]) -> None:
        """Go on to the phase that a step is in, as far as phases end by their number of steps.

        Args:
            step: Optimizer steps that were taken.
            lengths: Steps of each phase; None where that is not known.
        """
        while self.phase < len(lengths):
            length = lengths[self.phase]
            if length is None or step < self.began + length:
                return
            self._next(self.began + length)

    def note_evaluation(self, step: int, value: float, *, patience: int, lower: bool) -> None:
        """Note what an evaluation gave; a phase ends that waited for something better long enough.

        Args:
            step: Optimizer steps that were taken.
            value: The plateau's metric.
            patience: Evaluations without a better value after which the phase ends.
            lower: Whether a lower value is better.
        """
        if self.best is None or (value < self.best if lower else value > self.best):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= patience:
            self._next(step)

    def note_norms(self, norms: Sequence[float]) -> None:
        """Add up the norms of the layers' gradients in one step."""
        self.norms = [one + other for one, other in zip(self.norms or [0.0] * len(norms), norms, strict=True)]

    def settle(self) -> None:
        """Freeze layers from below whose norms changed less than the median of those that train; begin to add anew.

        The measure of Liu et al. 2021 (arXiv:2102.01386), ``|before - now| / before``, of sums of norms rather than of
        norms of sums, which would take the memory of the gradients once more.
        """
        if self.before is not None:
            changes = [
                abs(before - now) / before if before else 0.0
                for before, now in zip(self.before, self.norms, strict=True)
            ]
            middle = statistics.median(changes[self.settled :])
            while self.settled < len(changes) - 1 and changes[self.settled] < middle:
                self.settled += 1
        self.norms, self.before = [], self.norms

    def _next(self, step: int) -> None:
        fresh = Progress(self.phase + 1, step)
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

    def to_dict(self) -> dict[str, Any]:
        """The progress as plain values."""
        return asdict(self)


def is_lower_better(metric: str) -> bool:
    """Whether a lower value of a metric is the better one, told by its name."""
    return metric.endswith(_LOWER)
