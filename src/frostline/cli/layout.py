"""Tables and sentences laid out for a terminal's width; nothing is ever cut.

A table that does not fit wraps its heads, then leaves out columns that matter less, and says which. On a narrow
terminal, or where what matters does not fit, each row becomes lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_GAP = "  "
_NARROW = 72  # columns; below, whatever does not fit whole becomes lines


def lay_out(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int | None = None,
    *,
    right: Collection[str] = (),
    minor: Sequence[str] = (),
    rule: str = "─",
) -> list[str]:
    """Lay out a table.

    Args:
        titles: The heads of the columns.
        rows: The cells of each row, one per title.
        width: Columns of the terminal; None for as many as the table needs.
        right: Titles of the columns that are aligned to the right.
        minor: Titles of the columns that may be left out, in the order in which they go.
        rule: The sign of which the line beneath the heads is made.

    Returns:
        The lines, without trailing blanks.
    """
    whole = _Table(titles, [list(row) for row in rows], right, rule)
    if width is None:
        return whole.lines(wrapped=False)
    left_out = _to_leave_out(whole, [title for title in minor if title in titles], width)
    part = whole.without(left_out)
    if part.width(wrapped=True) > width or (left_out and width < _NARROW):
        return list(whole.as_lines(width))
    note = ["", f"Left out at {width} columns: {', '.join(left_out)}."] if left_out else []
    return [*part.lines(wrapped=part.width(wrapped=False) > width), *note]


def _to_leave_out(table: _Table, minor: Sequence[str], width: int) -> list[str]:
    """Titles of the columns without which a table fits; all that may go where it never does."""

    def fits(left_out: Sequence[str]) -> bool:
        return table.without(left_out).width(wrapped=True) <= width

    left_out: list[str] = []
    for title in minor:
        if not fits(left_out):
            left_out.append(title)
    for title in reversed(left_out.copy()):  # one that went first is no hindrance where a wide one followed it
        others = [other for other in left_out if other != title]
        if fits(others):
            left_out = others
    return left_out


class _Table:
    def __init__(self, titles: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str], rule: str) -> None:
        self._titles, self._rows, self._right, self._rule = titles, rows, right, rule

    def width(self, *, wrapped: bool) -> int:
        widths = self._widths(wrapped=wrapped)
        return sum(widths) + len(_GAP) * (len(widths) - 1)

    def lines(self, *, wrapped: bool) -> list[str]:
        """The heads, a rule, and a line per row."""
        widths = self._widths(wrapped=wrapped)
        heads = [list(_joined(title.split(), " ", width)) for title, width in zip(self._titles, widths, strict=True)]
        deepest = max(len(head) for head in heads)
        raised = [[""] * (deepest - len(head)) + head for head in heads]  # the last words stand on the rule
        drawn = [self._line(line, widths) for line in zip(*raised, strict=True)]
        return [*drawn, self._rule * self.width(wrapped=wrapped), *(self._line(row, widths) for row in self._rows)]

    def without(self, titles: Collection[str]) -> _Table:
        kept = [place for place, title in enumerate(self._titles) if title not in titles]
        rows = [[row[place] for place in kept] for row in self._rows]
        return _Table([self._titles[place] for place in kept], rows, self._right, self._rule)

    def as_lines(self, width: int) -> Iterator[str]:
        """Per row its name, and beneath it what else is known of it."""
        for name, *cells in self._rows:
            yield name
            told = zip(self._titles[1:], cells, strict=True)
            known = [f"{title}: {cell}" for title, cell in told if cell not in {"", "-"}]
            if known:
                yield from (f"{_GAP}{line}" for line in _joined(known, "; ", width - len(_GAP)))

    def _widths(self, *, wrapped: bool) -> list[int]:
        heads = [max(map(_size, title.split() if wrapped else [title])) for title in self._titles]
        return [max([size, *(_size(row[place]) for row in self._rows)]) for place, size in enumerate(heads)]

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        return _GAP.join(
            " " * (width - _size(cell)) + cell if title in self._right else cell + " " * (width - _size(cell))
            for cell, width, title in zip(cells, widths, self._titles, strict=True)
        ).rstrip()


def wrap(line: str, width: int, hang: str = "") -> Iterator[str]:
    """Break a line at its blanks; what is longer than the width without one, such as a path, stays whole.

    Args:
        line: One line; its indentation is that of all.
        width: Columns of the terminal.
        hang: What further indents all lines but the first.
    """
    text = line.lstrip(" ")
    indent = " " * (len(line) - len(text))
    first, *others = text.split(" ")
    return _joined([indent + first, *others], " ", width, indent + hang)


def _joined(parts: Iterable[str], between: str, width: int, indent: str = "") -> Iterator[str]:
    """Join parts to lines of at most a width, those after the first indented; a part that is wider stays whole."""
    line = ""
    for part in parts:
        longer = f"{line}{between}{part}" if line else part
        if line.strip() and _size(longer) > width:
            yield line.rstrip()
            line = indent + part
        else:
            line = longer
    yield line


def _size(text: str) -> int:
    """Columns of a terminal that a text takes; some signs take two."""
    from rich.cells import cell_len

    return cell_len(text)
