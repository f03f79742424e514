"""Turning values, names and row numbers into the words of an error message.

Whatever a file or a user contributes to a message passes through :func:`quoted`, or ``repr`` for
paths, which are never shortened; so a line break or a control character in the data never breaks
the promise of one or two lines.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def quoted(value: object, longest: int = 60) -> str:
    """Quotes a value in one line, shortened to ``longest`` characters."""
    text = str(value)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return repr(text)


def listed(values: Iterable[object], most: int = 12) -> str:
    """Lists quoted values: ``'a', 'b' and 3 more``."""
    items = list(values)
    text = ", ".join(quoted(item) for item in items[:most])
    left = len(items) - most
    return f"{text} and {left} more" if left > 0 else text


def suggestion(wanted: str, known: Iterable[str]) -> str:
    """Returns `` Did you mean 'x'?`` with the nearest known name, or an empty text."""
    names = list(known)
    by_folded = {name.strip().casefold(): name for name in reversed(names)}
    folded = wanted.strip().casefold()
    near = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    if not near and len(folded) > 2:
        near = [name for name in by_folded if name.startswith(folded)]
    return f" Did you mean {quoted(by_folded[near[0]])}?" if near else ""


def numbered(noun: str, numbers: Sequence[int]) -> str:
    """Names the first few of many: ``row 7``, ``rows 2, 7 and 9``, ``rows 2, 7, 9, 10, 12, … (38 in all)``."""
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    shown = [str(number) for number in numbers[:5]]
    if len(numbers) == len(shown):
        return f"{noun}s {', '.join(shown[:-1])} and {shown[-1]}"
    return f"{noun}s {', '.join(shown)}, … ({len(numbers):,} in all)"


def counted(number: int, noun: str) -> str:
    """Counts with the right ending: ``1 field``, ``3 fields``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
