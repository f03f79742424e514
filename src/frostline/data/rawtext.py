"""Checking the bytes of a text file: UTF-8, and no NUL characters."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from frostline.data.messages import quoted_path
from frostline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1 << 20  # bytes
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def check_utf8(path: Path, source: str) -> None:
    """Makes sure that a file is UTF-8 without NUL characters; a byte-order mark is fine.

    Args:
        path: The file.
        source: The file as the user named it, for messages.

    Raises:
        DataError: The file has another encoding, or holds a NUL character; the message names the
            line (1-based) and the byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1  # of the chunk's first byte
    with path.open("rb") as file:
        if file.read(2) in _UTF16_MARKS:
            raise DataError(
                f"{quoted_path(source)} is UTF-16, not UTF-8.\n"
                "Convert it, e.g. with `iconv -f UTF-16 -t UTF-8 OLD > NEW`."
            )
        file.seek(0)
        while True:
            chunk = file.read(_CHUNK)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = line + error.object.count(b"\n", 0, error.start)
                raise DataError(
                    f"{quoted_path(source)} is not UTF-8: line {at} holds the byte "
                    f"0x{error.object[error.start]:02x}.\nConvert it, e.g. with "
                    "`iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` if it comes from Windows."
                ) from None
            nul = chunk.find(b"\0")
            if nul >= 0:
                at = line + chunk.count(b"\n", 0, nul)
                raise DataError(
                    f"{quoted_path(source)}: line {at} holds a NUL character.\n"
                    "Remove it, e.g. with `tr -d '\\000' < OLD > NEW`."
                )
            if not chunk:
                return
            line += chunk.count(b"\n")
