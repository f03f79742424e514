"""Parameters of which some are run by ``make test-slow`` only: more of the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def slow(*values: Any) -> list[Any]:
    """Mark parameters as slow; a tuple is one set of several."""
    sets = (value if isinstance(value, tuple) else (value,) for value in values)
    return [pytest.param(*values, marks=pytest.mark.slow) for values in sets]


def one_in(count: int, values: Iterable[Any]) -> list[Any]:
    """Mark all as slow but the first, and each one so many further on."""
    return [value if place % count == 0 else slow(value)[0] for place, value in enumerate(values)]
