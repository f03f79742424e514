"""The guard: now and then a call that is answered on fast paths is repeated on the plain one."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frostline.engine.selfcheck.result import PathCheck

_SHARE = 0.01  # of the time since the first call, at most
_ALWAYS = 8  # widths below so many positions are all of one class


@dataclass(slots=True)
class Seen:
    """What the guard knows of calls of one kind.

    Attributes:
        calls: How many there were.
        widths: The widths that were compared, or at which one was.
        largest: The class of the largest of them.
        due: At which call the next comparison is due.
    """

    calls: int = 0
    widths: set[int] = field(default_factory=set)
    largest: int = 0
    due: int = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A comparison that did not hold.

    Attributes:
        call: Which call of its kind it was, from 1.
        outputs: Largest difference of outputs; None where the fast path failed.
        gradients: The same of gradients.
        consequence: What is done from then on, in words.
    """

    call: int
    outputs: float | None
    gradients: float | None
    consequence: str


class Guard:
    """Says which calls are to be repeated plainly, and counts what came of it.

    A call is repeated if it is the 10th, 100th, 1000th … of its kind, or if it is of a width that was not compared
    before; all this as long as it takes less than a hundredth of the time. Only calls that pass another power of two in
    width are repeated at any cost. (The first call of a kind is compared by the self-check.)

    Args:
        is_on: Whether anything is repeated.

    Attributes:
        compared: How many calls were.
        failures: Those that did not hold.
        seconds: What it took.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._began = time.perf_counter()
        self._last = 0.0
        self.compared = 0
        self.failures: list[Failure] = []
        self.seconds = 0.0
        self._largest = (0.0, 0.0)

    def is_due(self, seen: Seen, width: int) -> bool:
        """Take note of a call, and tell whether it is to be repeated.

        Args:
            seen: What is known of its kind; the first call of a kind counts as compared.
            width: Positions of its rows.
        """
        seen.calls += 1
        size = max(width, _ALWAYS).bit_length()
        if seen.calls == 1 or not self._is_on:
            seen.widths.add(width)
            seen.largest = size
            return False
        due = size > seen.largest or (
            (width not in seen.widths or seen.calls >= seen.due)
            and self.seconds + self._last <= _SHARE * (time.perf_counter() - self._began)
        )
        if due:
            seen.widths.add(width)
            seen.largest = max(size, seen.largest)
            while seen.due <= seen.calls:
                seen.due *= 10
        return due

    def note(self, check: PathCheck, seconds: float) -> None:
        """Count a comparison.

        Args:
            check: How it went.
            seconds: What it took.
        """
        self.compared += 1
        self.seconds += seconds
        self._last = seconds
        if check.admitted:
            outputs, gradients = self._largest
            self._largest = max(outputs, check.outputs or 0.0), max(gradients, check.gradients or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """As plain values: how many calls were compared, the largest differences, the failures, the seconds."""
        return {
            "compared": self.compared,
            "largest_difference_of_outputs": self._largest[0],
            "largest_difference_of_gradients": self._largest[1],
            "failures": [asdict(failure) for failure in self.failures],
            "seconds": round(self.seconds, 3),
        }
