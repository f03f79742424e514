"""What a contestant is given, and what it must give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.job import Job

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.data import Split


@dataclass(frozen=True)
class Case:
    """One run of one contestant.

    Attributes:
        train: The texts to learn from, with their labels.
        classes: The number of labels.
        folder: An empty folder for what a trainer writes.
        tiny: Whether this is the warm-up, which has a tiny model.
    """

    train: Split
    classes: int
    folder: Path
    tiny: bool = False


Predict = Callable[[Sequence[str]], list[int]]
Work = Callable[[], Predict]
# Imports what it needs and reads the model, untimed; what it returns is the timed region.
Contestant = Callable[[Job, Case], Work]
