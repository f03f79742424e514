"""What a row of the table is, and the rows that there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.case import Contestant
    from benchmarks.job import Job
    from benchmarks.task import Make, TaskContestant

# As `make bench ROW=…` takes them; each is a file of this folder, with "_" for "-".
NAMES = (
    "head10",
    "head1",
    "top1",
    "top2",
    "top2-grouped",
    "lora-top4",
    "full",
    "tutorial",
    "bf16",
    "base-top2",
    "long",
    "prefix",
    "memory",
    "tokens-top2",
    "qa-top2",
    "vit-top2",
    "audio-head",
    "clm-top2",
    "loop",
    "sweep",
    "sweep-apart",
    "gpu",
)

Figure = Literal["speed", "memory", "share"]


@dataclass(frozen=True)
class Target:
    """A ratio to reach: at least, or at most, `value`."""

    value: float
    at_most: bool = False

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches it."""
        return ratio <= self.value if self.at_most else ratio >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.value:g}"


def _anywhere() -> None:
    """Nothing stands in the way of most rows."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        name: As in the table.
        work: What is done, in words.
        peer: What it is compared with, in words.
        job: What is trained, and on what.
        ours: Frostline's side.
        theirs: The peer's side; None where it is the limit by FLOPs.
        figure: ``"speed"``: the peer's seconds by ours. ``"memory"``: our rise of the peak memory by the peer's.
            ``"share"``: the limit's seconds by ours.
        target: The ratio to reach; None if it is only reported.
        unavailable: Says why this machine cannot run the row, or None.
        task: Makes the model and the rows of another task than text classification, which has neither accuracy nor
            limit: the mean loss of its last steps stands for the accuracy. None for text classification.
    """

    name: str
    work: str
    peer: str
    job: Job
    ours: Contestant | TaskContestant
    theirs: Contestant | TaskContestant | None
    figure: Figure = "speed"
    target: Target | None = None
    unavailable: Callable[[], str | None] = field(default=_anywhere)
    task: Make | None = None


def rows_named(name: str) -> tuple[Row, ...]:
    """The rows of one of `NAMES`: one, except for ``gpu``."""
    rows: tuple[Row, ...] = import_module(f"benchmarks.{name.replace('-', '_')}").ROWS
    return rows


def all_rows() -> Iterator[Row]:
    """Every row, in the order of the table."""
    for name in NAMES:
        yield from rows_named(name)
