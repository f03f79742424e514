"""Checking JSON files: one object per line, or one array of objects.

A strict look at every line comes first (once: afterwards the file is cached), so that an error can
name the line. Numbers keep their type, and nothing is taken for a date.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from frostline.base.json import parse_json
from frostline.data.messages import quoted, quoted_path
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EXAMPLE = '`{"text": "...", "label": "..."}`'


def count_rows(path: Path, source: str) -> int:
    """Reads the file strictly and counts its rows.

    Args:
        path: A JSON or JSON Lines file of valid UTF-8.
        source: The file as the user named it, for messages.

    Raises:
        DataError: A line is no JSON object, a text holds half a character, or there are no
            rows; the message names the line (1-based).
    """
    rows = sum(1 for _ in json_rows(path, source))
    if not rows:
        raise DataError(f"{quoted_path(source)} is empty.\nWrite one object per line, e.g. {_EXAMPLE}.")
    return rows


def json_rows(path: Path, source: str) -> Iterator[dict[str, Any]]:
    """Yields the rows.

    Raises:
        DataError: As in :func:`count_rows`.
    """
    if is_array(path):
        yield from _array_rows(path, source)
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not line:
                continue
            row = _parsed(line, source, f"line {number}", number, f"Write one whole object per line, e.g. {_EXAMPLE}.")
            yield _checked(row, source, f"line {number}")


def is_array(path: Path) -> bool:
    """Tells whether the file holds one array instead of one object per line."""
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array_rows(path: Path, source: str) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    rows = _parsed(text, source, "the array", 1, "Write one array of objects, or one object per line.")
    if not isinstance(rows, list):  # an array that something follows was refused above
        raise DataError(f"{quoted_path(source)} is not one array of objects.")
    for number, row in enumerate(rows, 1):
        yield _checked(row, source, f"element {number} of the array")


def _parsed(text: str, source: str, place: str, first_line: int, mend: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        line = quoted(text.split("\n")[error.lineno - 1])
        cause = f"line {first_line + error.lineno - 1} is not JSON: {error.msg} at character {error.colno}, in {line}"
    except ValueError as error:
        cause = f"{place} cannot be used: {error}"
    raise DataError(f"{quoted_path(source)}: {cause}.\n{mend}")


def _checked(row: Any, source: str, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f"{quoted_path(source)}: {place} is no object, but {quoted(json.dumps(row))}.\n"
            f"Write one object per line, e.g. {_EXAMPLE}."
        )
    return row
