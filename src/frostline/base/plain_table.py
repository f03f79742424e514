"""Tables as plain text, for results that are printed without a terminal's help."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence


def plain_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right_aligned: Collection[str] = ()
) -> Iterator[str]:
    """Yield the lines of a table, the titles first, without trailing blanks.

    Args:
        columns: The titles.
        rows: The cells of each row, one per title.
        right_aligned: Titles of the columns that are aligned to the right.
    """
    cells = [columns, *rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        padded = [
            cell.rjust(width) if title in right_aligned else cell.ljust(width)
            for cell, width, title in zip(line, widths, columns, strict=True)
        ]
        yield "  ".join(padded).rstrip()
