"""Checking CSV and TSV files before anything reads them, so that an error can name the line.

The reader behind ``datasets`` guesses where a file is irregular: it takes a surplus first field
for an index, fills missing fields with nulls, and lets a stray double quote swallow the rows up to
the next one. So every file passes a strict reader first (once: afterwards it is cached).

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
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from frostline.data.messages import counted, listed, numbered, quoted_path
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ENCODING = "utf-8-sig"  # with or without a byte-order mark
_DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class Dialect:
    """How a file separates and quotes its fields.

    Attributes:
        delimiter: The character between two fields.
        quoted: Whether double quotes enclose fields; otherwise they are plain characters.
    """

    delimiter: str
    quoted: bool = True

    @property
    def quoting(self) -> Literal[0, 3]:
        """The constant that :mod:`csv` and pandas share."""
        return csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE


@dataclass(frozen=True)
class Scan:
    """What a strict reading found.

    Attributes:
        dialect: How the file separates and quotes its fields.
        rows: The number of data rows.
        swallows: Whether quotes let a record of several fields span several lines.
    """

    dialect: Dialect
    rows: int
    swallows: bool


def dialects(path: Path) -> tuple[Dialect, ...]:
    """Returns the dialects that a CSV or TSV file may have, the likeliest first."""
    if path.suffix.lower() == ".tsv":
        return Dialect("\t"), Dialect("\t", quoted=False)
    with path.open(encoding=ENCODING, errors="replace", newline="") as file:
        header = next((line for line in file if line.strip()), "")
    return (Dialect(next((mark for mark in ",;\t" if mark in header), ",")),)


def column_names(path: Path, source: str, dialect: Dialect) -> tuple[str, ...]:
    """Reads the header; a column without a name is called ``Unnamed: N``, N from 0, as in pandas.

    Raises:
        DataError: There is no header, or it repeats a name.
    """
    with _records(path, dialect) as records:
        try:
            _, header = next(records, (0, None))
        except csv.Error:
            raise _stray_quote(source, records) from None
    if header is None:
        raise DataError(
            f"{quoted_path(source)} is empty.\nA table starts with a line of column names, e.g. `text,label`."
        )
    names = tuple(name or f"Unnamed: {index}" for index, name in enumerate(header))
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        places = [index for index, name in enumerate(names, 1) if name == twice[0]]
        raise DataError(
            f"{quoted_path(source)} names the column {listed(twice[:1])} twice: "
            f"{numbered('column', places)} of the header.\nRename or remove one."
        )
    return names


def scan(path: Path, source: str) -> Scan:
    """Reads the file strictly, choosing between its possible dialects.

    Args:
        path: A CSV or TSV file of valid UTF-8.
        source: The file as the user named it, for messages.

    Raises:
        DataError: A row has too many or too few fields, a quote is out of place, or there are no
            rows; the message names the line (1-based).
    """
    first, *others = dialects(path)
    found: Scan | None = None
    problem: DataError | None = None
    try:
        found = _scan_as(path, source, first)
    except DataError as error:
        problem = error
    if found is None or found.swallows:
        for other in others:
            try:
                return _scan_as(path, source, other)
            except DataError:
                continue
    if found is None:
        raise problem or AssertionError
    return found


def plain_rows(path: Path, dialect: Dialect) -> Iterator[list[str]]:
    """Yields the data rows of a file that :func:`scan` accepted."""
    with _records(path, dialect) as records:
        next(records)
        for _, row in records:
            yield row


def _scan_as(path: Path, source: str, dialect: Dialect) -> Scan:
    names = column_names(path, source, dialect)
    width = len(names)
    count = 0
    swallows = False
    with _records(path, dialect) as records:
        try:
            next(records)
            for start, row in records:
                if len(row) != width:
                    raise _wrong_width(source, dialect, names, start, len(row))
                swallows = swallows or start != records.line
                count += 1
        except csv.Error:
            raise _stray_quote(source, records) from None
    if not count:
        raise DataError(
            f"{quoted_path(source)} has a header ({listed(names)}) but no rows.\n"
            "Add rows below the header, or name another file."
        )
    return Scan(dialect, count, swallows and width > 1)


class _Records:
    """Iterates over ``(first line, fields)`` of the records, leaving out blank lines.

    Attributes:
        start: The first line of the newest record, 1-based.
    """

    def __init__(self, lines: Iterable[str], dialect: Dialect) -> None:
        self._reader = csv.reader(lines, delimiter=dialect.delimiter, quoting=dialect.quoting, strict=True)
        self._width = 0
        self.start = 1

    @property
    def line(self) -> int:
        """The last line read, 1-based."""
        return self._reader.line_num

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            self.start = self._reader.line_num + 1
            row = next(self._reader)
            if not row or (len(row) == 1 and self._width != 1 and not row[0].strip()):
                continue
            self._width = self._width or len(row)
            return self.start, row


@contextmanager
def _records(path: Path, dialect: Dialect) -> Iterator[_Records]:
    """Opens a file's records; meanwhile a field may be longer than csv's usual 128 KiB."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding=ENCODING, newline="") as file:
            yield _Records(file, dialect)
    finally:
        csv.field_size_limit(limit)


def _wrong_width(source: str, dialect: Dialect, names: tuple[str, ...], line: int, width: int) -> DataError:
    mark = _DELIMITER_NAMES[dialect.delimiter]
    mend = (
        f"Put double quotes around a text that contains a {mark}."
        if width > len(names)
        else "Add what is missing, or put double quotes around a text that contains a line break."
    )
    if not dialect.quoted:
        mend = f"Replace each {mark} or line break within a text by a space."
    return DataError(
        f"{quoted_path(source)}: line {line} has {counted(width, 'field')} where the header names "
        f"{len(names)} ({listed(names)}).\n{mend}"
    )


def _stray_quote(source: str, records: _Records) -> DataError:
    return DataError(
        f"{quoted_path(source)}: in the record that starts in line {records.start}, a double quote "
        f"opens a field but does not close at its end (read up to line {records.line}).\n"
        "Write a double quote inside a text twice, and enclose that text in double quotes."
    )
