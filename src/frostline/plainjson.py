"""Reading JSON files that somebody else may have written or changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


_HALF = re.compile(r"\\u[dD]")  # only such an escape can stand for half a character


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON in UTF-8, is nested deeper than Python reads, or holds half a character (a lone
            surrogate), which no file or terminal takes.
    """
    return parse_json(file.read_text(encoding="utf-8"))


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
