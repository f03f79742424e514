"""How far long work on checkpoints has come."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int], None]
"""Is called with the bytes that are done, and with those of the whole."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


class Meter:
    """Counts the bytes that were worked on.

    Args:
        total: All of them.
        report: Is told each time that some were.
    """

    def __init__(self, total: int, report: Report = silent) -> None:
        self._done, self._total, self._report = 0, total, report

    def add(self, count: int) -> None:
        """Count some more."""
        self._done += count
        self._report(self._done, self._total)
