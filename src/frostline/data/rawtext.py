"""Checking the bytes of a text file: UTF-8, and no NUL characters; and telling what other files are."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from frostline.data.messages import quoted_path
from frostline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1 << 20  # bytes
# UTF-32 comes first: its mark begins as that of UTF-16.
_MARKS = {
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-32"),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "UTF-16"),
}
# How files begin that are no text.
_PACKINGS = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_KINDS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF file",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format": "an SQLite database",
}
_TEXT_CONTROLS = b"\t\n\r\f"


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
        beginning = file.read(_CHUNK)
        encoding = _named(_MARKS, beginning)
        if encoding is not None:
            raise DataError(
                f"{quoted_path(source)} is {encoding}, not UTF-8.\n"
                f"Convert it, e.g. with `iconv -f {encoding} -t UTF-8 OLD > NEW`."
            )
        file.seek(0)
        while True:
            chunk = file.read(_CHUNK)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = line + error.object.count(b"\n", 0, error.start)
                raise _no_utf8(path, source, beginning, at, error.object[error.start]) from None
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


def packing_of(path: Path) -> str | None:
    """Returns the program that packed a file, by how the file begins; ``None`` for any other file."""
    with path.open("rb") as file:
        return _named(_PACKINGS, file.read(16))


def _no_utf8(path: Path, source: str, beginning: bytes, line: int, byte: int) -> DataError:
    """Says what a file that is not UTF-8 probably is; to convert helps with what is text."""
    packed, kind = _named(_PACKINGS, beginning), _named(_KINDS, beginning)
    if packed is not None:
        return DataError(f"{quoted_path(source)} is packed by {packed}, and no text.\nUnpack it first.")
    if kind is not None:
        return DataError(f"{quoted_path(source)} is {kind}, and no text.\nName a {path.suffix.lower()} file.")
    controls = [sign for sign in beginning if (sign < 32 and sign not in _TEXT_CONTROLS) or sign == 127]
    if controls:
        return DataError(
            f"{quoted_path(source)} is no text: it holds the byte 0x{byte:02x} in line {line}, which is not UTF-8, and "
            f"control characters such as 0x{controls[0]:02x}.\nName a {path.suffix.lower()} file."
        )
    return DataError(
        f"{quoted_path(source)} is not UTF-8: line {line} holds the byte 0x{byte:02x}.\n"
        "Convert it, e.g. with `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` if it comes from Windows."
    )


def _named(beginnings: dict[bytes, str], content: bytes) -> str | None:
    return next((name for beginning, name in beginnings.items() if content.startswith(beginning)), None)
