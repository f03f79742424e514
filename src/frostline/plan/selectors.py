"""The selector language, parsed: a text becomes a tuple of terms, without any model.

Grammar::

    expression := term ("," term)*
    term       := ["~"] atom
    atom       := "embeddings" | "norm" | "pooler" | "other" | "head" | "backbone" | "all"
                | "bias" | "norms" | "adapters"
                | [STACK "."] "layers" ["[" INDEX | START ":" STOP [":" STEP] "]"]
                | "re:" REGULAR_EXPRESSION
                | NAME_OR_GLOB

A comma inside brackets, braces or parentheses, or behind a backslash, belongs to its atom.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from frostline.errors import SelectorError

TermKind = Literal["unit", "layers", "kind", "regex", "glob", "name"]

UNIT_WORDS = ("embeddings", "norm", "pooler", "other", "head", "backbone", "all")
KIND_WORDS = ("bias", "norms", "adapters")

_LAYERS = re.compile(r"(?:(?P<stack>[^\[\]*?]+)\.)?layers(?:\[(?P<inside>[^\]]*)\])?")
_INDEX = re.compile(r"\s*(-?\d+)\s*")
_SLICE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?\d+)?\s*)?")


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a selector.

    Attributes:
        text: The atom as written, without ``~``.
        kind: How the atom is matched.
        takes_away: Whether the term removes what it matches.
        span: Start and end of the term in the expression, ``~`` included.
        stack: The stack named before ``layers``; None where none is named.
        index: A layer number, or a slice of them; None where ``layers`` stands alone.
        pattern: The compiled regular expression of a ``re:`` atom.
    """

    text: str
    kind: TermKind
    takes_away: bool
    span: tuple[int, int]
    stack: str | None = None
    index: int | slice | None = None
    pattern: re.Pattern[str] | None = None


def join(selectors: str | Iterable[str]) -> str:
    """Make one expression of a text or of several texts.

    Raises:
        SelectorError: If it is anything else.
    """
    parts = [selectors] if isinstance(selectors, str) else list(selectors) if isinstance(selectors, Iterable) else []
    if not parts or not all(isinstance(part, str) for part in parts):
        raise SelectorError(
            f"A selector is a text, or several texts; given was {' '.join(repr(selectors).split())[:80]}.\n"
            "Name what is meant: 'backbone', 'layers[:8]', 'head' …"
        )
    return ", ".join(parts)


def marked(expression: str, span: tuple[int, int]) -> str:
    """Quote an expression with one term marked, for messages."""
    start, end = span
    text = f"'{expression[:start]}»{expression[start:end]}«{expression[end:]}'"
    return " ".join(text.splitlines())


@lru_cache(maxsize=256)
def parse(expression: str) -> tuple[Term, ...]:
    """Parse an expression.

    Args:
        expression: A text in the selector language.

    Returns:
        Its terms, in order.

    Raises:
        SelectorError: If it is empty, has an empty term, a broken slice or regular expression,
            or starts by taking away.
    """
    if not expression.strip():
        raise SelectorError("The selector is empty.\nName what is meant: 'backbone', 'layers[:8]', 'head' …")
    terms = tuple(_parse_term(expression, span) for span in _split(expression))
    if terms[0].takes_away:
        raise SelectorError(
            f"The selector {marked(expression, terms[0].span)} takes away before anything is selected.\n"
            f"Say from what: 'all, {' '.join(expression.split())}'."
        )
    return terms


def _split(expression: str) -> Iterator[tuple[int, int]]:
    """Yield the span of each term, white space around it left out."""
    depth = start = 0
    escaped = False
    for position, character in enumerate(expression):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            yield _stripped(expression, start, position)
            start = position + 1
    yield _stripped(expression, start, len(expression))


def _stripped(expression: str, start: int, end: int) -> tuple[int, int]:
    text = expression[start:end]
    if not text.strip():
        raise SelectorError(
            f"The selector {marked(expression, (start, end))} has an empty term at the mark.\nRemove the extra comma."
        )
    return start + len(text) - len(text.lstrip()), end - (len(text) - len(text.rstrip()))


def _parse_term(expression: str, span: tuple[int, int]) -> Term:
    written = expression[slice(*span)]
    takes_away = written.startswith("~")
    text = written.removeprefix("~").strip()
    if not text or text.startswith("~"):
        raise SelectorError(
            f"The selector {marked(expression, span)} has no name behind '~' at the mark.\n"
            "Write '~' once, right before what is to be taken away: '~bias'."
        )
    if text in UNIT_WORDS:
        return Term(text, "unit", takes_away, span)
    if text in KIND_WORDS:
        return Term(text, "kind", takes_away, span)
    if text.startswith("re:"):
        return Term(text, "regex", takes_away, span, pattern=_compile(expression, span, text[3:]))
    layers = _LAYERS.fullmatch(text)
    if layers:
        index = _parse_index(expression, span, layers["inside"])
        return Term(text, "layers", takes_away, span, stack=layers["stack"], index=index)
    if text.count("[") > text.count("]"):
        inside, comma, rest = expression[slice(*span)].partition(",")
        raise SelectorError(
            f"The selector {marked(expression, span)} has a bracket at the mark that is not closed.\n"
            f"Close it: '{' '.join(f'{inside.rstrip()}]{comma}{rest}'.split())}'."
        )
    return Term(text, "glob" if re.search(r"[*?\[]", text) else "name", takes_away, span)


def _compile(expression: str, span: tuple[int, int], pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SelectorError(
            f"The selector {marked(expression, span)} has a broken regular expression at the mark: {error}.\n"
            "It must match a parameter's whole name; a literal dot is written '\\.'."
        ) from None


def _parse_index(expression: str, span: tuple[int, int], inside: str | None) -> int | slice | None:
    if inside is None:
        return None
    if number := _INDEX.fullmatch(inside):
        return int(number[1])
    if parts := _SLICE.fullmatch(inside):
        start, stop, step = (int(part) if part else None for part in parts.groups())
        if step != 0:
            return slice(start, stop, step)
    word = expression[slice(*span)].removeprefix("~").strip().partition("[")[0]
    several = ", ".join(f"{word}[{part.strip()}]" for part in inside.split(","))
    mend = f"Name them one by one: '{several}'." if "," in inside else "Write layers[3], layers[:8] or layers[-2:]."
    raise SelectorError(f"The selector {marked(expression, span)} has no layer number or slice at the mark.\n{mend}")
