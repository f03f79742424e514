"""Reading JSON files: one object per line, or one array of objects.

Every line is parsed by itself, so that an error can name it. Numbers keep their type, and nothing is taken for a date.
"""

from __future__ import annotations

import codecs
import io
import json
from typing import TYPE_CHECKING, Any

from frostline.base.json import parse_json
from frostline.compat.tables import of_mixed
from frostline.data.messages import quoted
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

_EXAMPLE = '`{"text": "...", "label": "..."}`'


def parse_json_rows(content: bytes, source: str) -> pa.Table:
    """Parses a JSON or JSON Lines file.

    Args:
        content: The file's bytes.
        source: The file as the user named it, for messages.

    Returns:
        The rows; a column of mixed types becomes JSON texts.

    Raises:
        DataError: A line is no JSON object, a text holds half a character, or there are no
            rows; the message names the line (1-based).
        UnicodeDecodeError: It is not UTF-8.
    """
    import pyarrow as pa

    content = content.removeprefix(codecs.BOM_UTF8)
    is_array = content[:4096].lstrip().startswith(b"[")
    rows: list[dict[str, Any]] = []
    for place, row in _array_rows(content, source) if is_array else _line_rows(content, source):
        if not isinstance(row, dict):
            raise DataError(
                f"{source!r}: {place} is no object, but {quoted(json.dumps(row))}.\n"
                f"Write one object per line, e.g. {_EXAMPLE}."
            )
        rows.append(row)
    if not rows:
        raise DataError(f"{source!r} is empty.\nWrite one object per line, e.g. {_EXAMPLE}.")
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if bool not in kinds or kinds == {bool}:  # pyarrow would take True for 1.0
        try:
            return pa.array(values)
        except (pa.ArrowException, TypeError, OverflowError):
            if kinds <= {int, float}:  # whole ones too large for their types
                return pa.array([None if value is None else float(value) for value in values])
    return of_mixed([json.dumps(value, ensure_ascii=False) for value in values])


def _line_rows(content: bytes, source: str) -> Iterator[tuple[str, Any]]:
    for number, raw in enumerate(io.BytesIO(content), 1):
        line, place = raw.decode().strip(), f"line {number}"
        if line:
            yield place, _parsed(line, source, place, number, f"Write one whole object per line, e.g. {_EXAMPLE}.")


def _array_rows(content: bytes, source: str) -> Iterator[tuple[str, Any]]:
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()
    rows = _parsed(text, source, "the array", 1, "Write one array of objects, or one object per line.")
    for number, row in enumerate(rows, 1):
        yield f"element {number} of the array", row


def _parsed(text: str, source: str, place: str, first_line: int, mend: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        line = quoted(text.split("\n")[error.lineno - 1])
        cause = f"line {first_line + error.lineno - 1} is not JSON: {error.msg} at character {error.colno}, in {line}"
    except ValueError as error:
        cause = f"{place} cannot be used: {error}"
    raise DataError(f"{source!r}: {cause}.\n{mend}")
