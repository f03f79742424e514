"""Reading JSON files that somebody else may have written or changed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from frostline.base.files import open_regular

LARGEST = 64 << 20  # bytes of a file
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
