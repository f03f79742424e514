"""Checking JSON files: one object per line, or one array of objects.

A strict look at every line comes first (once: afterwards the file is cached), so that an error can
name the line. Numbers keep their type, and nothing is taken for a date.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

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
        DataError: A line is no JSON object, a text holds half a surrogate pair, or there are no
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
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{quoted_path(source)}: line {number} is not JSON: {error.msg} at character "
                    f"{error.pos + 1}, in {quoted(line)}.\n"
                    f"Write one whole object per line, e.g. {_EXAMPLE}."
                ) from None
            except RecursionError:
                raise DataError(
                    f"{quoted_path(source)}: line {number} is nested too deeply.\n"
                    f"Write one plain object per line, e.g. {_EXAMPLE}."
                ) from None
            yield _checked(row, source, f"line {number}", surrogates="\\ud" in line.lower())


def is_array(path: Path) -> bool:
    """Tells whether the file holds one array instead of one object per line."""
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array_rows(path: Path, source: str) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{quoted_path(source)}: line {error.lineno} is not JSON: {error.msg} at character "
            f"{error.colno}.\nWrite one array of objects, or one object per line."
        ) from None
    except RecursionError:
        raise DataError(
            f"{quoted_path(source)} is nested too deeply.\nWrite one plain object per line, e.g. {_EXAMPLE}."
        ) from None
    if not isinstance(rows, list):  # an array that something follows was refused above
        raise DataError(f"{quoted_path(source)} is not one array of objects.")
    surrogates = "\\ud" in text.lower()
    for number, row in enumerate(rows, 1):
        yield _checked(row, source, f"element {number} of the array", surrogates=surrogates)


def _checked(row: Any, source: str, place: str, *, surrogates: bool) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f"{quoted_path(source)}: {place} is no object, but {quoted(json.dumps(row))}.\n"
            f"Write one object per line, e.g. {_EXAMPLE}."
        )
    if surrogates:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            raise DataError(
                f"{quoted_path(source)}: {place} holds half a surrogate pair, "
                f"\\u{ord(character):04x}, which is no character.\n"
                "Remove it; it is what remains of an emoji that was cut in two."
            ) from None
    return row
