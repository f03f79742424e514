"""Reading CSV and TSV files strictly, so that an error can name the line.

Readers that guess where a file is irregular take a surplus first field for an index, fill missing fields with nulls,
and let a stray double quote swallow the rows up to the next one. Python's own, told to be strict, does not.

Decisions:

- A ``.csv`` file whose header holds no comma, but semicolons or tabs, is read with those (the
  spreadsheets of half of Europe write semicolons).
- In a ``.tsv`` file double quotes may be plain characters. They count as quoting where they are
  paired correctly. If they are not, or if a pair would swallow lines that each have the header's
  number of fields (two or more), they are plain characters.
- Blank lines are skipped.
"""

from __future__ import annotations

import csv
import io
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from frostline.data.messages import counted, listed, numbered
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}
_ROWS_AT_ONCE = 10_000  # texts of Python, before they move to a table


def parse_csv(content: bytes, source: str) -> pa.Table:
    """Parses a CSV file.

    Args:
        content: The file's bytes.
        source: The file as the user named it, for messages.

    Returns:
        The rows, every cell a text. A column without a name is called ``Unnamed: N``, N from 0, as in pandas.

    Raises:
        DataError: A row has too many or too few fields, a quote is out of place, a name is there twice, or
            there are no rows; the message names the line (1-based).
        UnicodeDecodeError: It is not UTF-8.
    """
    header = next((line for line in _lines(content) if line.strip()), "")
    return _parse(content, source, next((mark for mark in _DELIMITER_NAMES if mark in header), ","))[0]


def parse_tsv(content: bytes, source: str) -> pa.Table:
    """Parses a TSV file, with quotes or without; else as :func:`parse_csv`."""
    try:
        quoted, swallows = _parse(content, source, "\t")
    except DataError:
        with suppress(DataError):
            return _parse(content, source, "\t", quotes=False)[0]
        raise
    if swallows:
        with suppress(DataError):
            return _parse(content, source, "\t", quotes=False)[0]
    return quoted


def _parse(content: bytes, source: str, delimiter: str, *, quotes: bool = True) -> tuple[pa.Table, bool]:
    """Parses a file; tells whether quotes let a record of several fields span several lines."""
    import pyarrow as pa

    reader = csv.reader(
        _lines(content),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    names: list[str] = []
    rows: list[list[str]] = []
    tables: list[pa.Table] = []
    swallows = False
    start = 1  # the first line of the record that is read next
    usual_limit = csv.field_size_limit(sys.maxsize)  # 128 KiB, and a text may be longer
    try:
        for row in reader:
            if not row or (len(row) == 1 and len(names) != 1 and not row[0].strip()):
                pass  # a blank line
            elif not names:
                names = _column_names(row, source)
            elif len(row) != len(names):
                raise _wrong_width(source, delimiter, names, start, len(row), quotes=quotes)
            else:
                rows.append(row)
                swallows = swallows or start != reader.line_num
                if len(rows) == _ROWS_AT_ONCE:
                    tables.append(_table(names, rows))
                    rows = []
            start = reader.line_num + 1
    except csv.Error:
        raise DataError(
            f"{source!r}: in the record that starts in line {start}, a double quote "
            f"opens a field but does not close at its end (read up to line {reader.line_num}).\n"
            "Write a double quote inside a text twice, and enclose that text in double quotes."
        ) from None
    finally:
        csv.field_size_limit(usual_limit)
    if not names:
        raise DataError(f"{source!r} is empty.\nA table starts with a line of column names, e.g. `text,label`.")
    if rows:
        tables.append(_table(names, rows))
    if not tables:
        raise DataError(
            f"{source!r} has a header ({listed(names)}) but no rows.\nAdd rows below the header, or name another file."
        )
    return pa.concat_tables(tables), swallows and len(names) > 1


def _lines(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")


def _column_names(header: Sequence[str], source: str) -> list[str]:
    names = [name or f"Unnamed: {index}" for index, name in enumerate(header)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        places = [index for index, name in enumerate(names, 1) if name == twice[0]]
        raise DataError(
            f"{source!r} names the column {listed(twice[:1])} twice: "
            f"{numbered('column', places)} of the header.\nRename or remove one."
        )
    return names


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    import pyarrow as pa

    return pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], names=names)


def _wrong_width(
    source: str, delimiter: str, names: Sequence[str], line: int, width: int, *, quotes: bool
) -> DataError:
    mark = _DELIMITER_NAMES[delimiter]
    if not quotes:
        mend = f"Replace each {mark} or line break within a text by a space."
    elif width > len(names):
        mend = f"Put double quotes around a text that contains a {mark}."
    else:
        mend = "Add what is missing, or put double quotes around a text that contains a line break."
    return DataError(
        f"{source!r}: line {line} has {counted(width, 'field')} where the header names "
        f"{len(names)} ({listed(names)}).\n{mend}"
    )
