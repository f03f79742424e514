"""JSON: files that somebody else may have written or changed, files of our own, and results as plain values."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from frostline.base.files import open_regular

LARGEST = 64 << 20  # bytes of a file
_MOST = 1e300  # far below where floats end
_HALF = re.compile(r"\\u[dD]")  # only such an escape can stand for half a character


def read_json(file: Path, largest: int = LARGEST) -> Any:
    """Read a JSON file, never more of it than a bound.

    Args:
        file: The file; a link is followed.
        largest: The most bytes that it may have.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it is too large, is no JSON in UTF-8, is nested deeper than Python reads, or holds half a
            character (a lone surrogate), which no file or terminal takes.
    """
    with open_regular(file) as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is larger than {largest:,} bytes")
    return parse_json(content.decode())


def parse_json(text: str) -> Any:
    """Read JSON from a text.

    Raises:
        ValueError: As `read_json`.
    """
    try:
        values = json.loads(text)
        if _HALF.search(text):
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise ValueError(f"it holds half a character, \\u{code:04x}, as is left of an emoji cut in two") from None
    return values


def write_json(file: Path, values: Any, *, indent: int | None = 1, ensure_ascii: bool = False) -> None:
    """Write plain values into a file in UTF-8, with an end of line."""
    text = json.dumps(values, indent=indent, ensure_ascii=ensure_ascii)
    file.write_text(text + "\n", encoding="utf-8")


def json_digest(values: Any) -> str:
    """SHA-256 of plain values, in hex digits; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def picked(result: Any, *names: str) -> dict[str, Any]:
    """Give some attributes of a result by their names, in that order, as plain values."""
    return {name: _plain(getattr(result, name)) for name in names}


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, tuple | list):
        return list(map(_plain, value))
    return dict(value) if isinstance(value, dict) else value


def finite(values: Any) -> Any:
    """Plain values with None for numbers that JSON does not have, such as the loss of a run that diverged."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def is_number(value: Any) -> bool:
    """Whether a value that somebody else may have written is a finite number, and no whole one beyond all floats."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST
