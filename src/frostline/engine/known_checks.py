"""Self-checks that several engines share: for copies of one model, which differ in what trains only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frostline.engine.selfcheck.result import SelfCheck

# By what trains, and the kind of calls.
Known = dict[Any, list["SelfCheck"]]

_KNOWN: ContextVar[Known | None] = ContextVar("known_checks", default=None)


@contextmanager
def sharing_checks(known: Known) -> Iterator[None]:
    """Have engines that are made in a block take what was found out for a copy of their model, and add to it.

    Which paths are exact follows from code, configuration and what is frozen, which copies have in common; the guard
    of each engine still repeats its own steps.

    Args:
        known: What is known; empty for a model of which nothing is.
    """
    token = _KNOWN.set(known)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def known_checks() -> Known | None:
    """What an engine that is made now shares with others; None outside of `sharing_checks`."""
    return _KNOWN.get()
