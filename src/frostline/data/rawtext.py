"""Telling what is wrong with the bytes of a text file, and what other files are."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from frostline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

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
_BEGINNING = 1 << 20  # bytes in which control characters are looked for
_TEXT_CONTROLS = b"\t\n\r\f"


def refuse_no_text(content: bytes, suffix: str, source: str) -> None:
    """Makes sure that a file is UTF-8 without NUL characters; a byte-order mark is fine.

    Args:
        content: The file's bytes.
        suffix: The ending of its name.
        source: The file as the user named it, for messages.

    Raises:
        DataError: The file has another encoding, or holds a NUL character; the message names the
            line (1-based) and the byte.
    """
    encoding = _named(_MARKS, content)
    if encoding is not None:
        raise DataError(
            f"{source!r} is {encoding}, not UTF-8.\nConvert it, e.g. with `iconv -f {encoding} -t UTF-8 OLD > NEW`."
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise _no_utf8(content, suffix, source, error.start) from None
    if b"\0" in content:
        raise DataError(
            f"{source!r}: line {_line(content, content.index(0))} holds a NUL character.\n"
            "Remove it, e.g. with `tr -d '\\000' < OLD > NEW`."
        )


def packing_of(path: Path) -> str | None:
    """Returns the program that packed a file, by how the file begins; ``None`` for any other file."""
    with path.open("rb") as file:
        return _named(_PACKINGS, file.read(16))


def _no_utf8(content: bytes, suffix: str, source: str, at: int) -> DataError:
    """Says what a file that is not UTF-8 probably is; to convert helps with what is text."""
    packed, kind = _named(_PACKINGS, content), _named(_KINDS, content)
    if packed is not None:
        return DataError(f"{source!r} is packed by {packed}, and no text.\nUnpack it first.")
    if kind is not None:
        return DataError(f"{source!r} is {kind}, and no text.\nName a {suffix} file.")
    byte, line = content[at], _line(content, at)
    controls = [sign for sign in content[:_BEGINNING] if (sign < 32 and sign not in _TEXT_CONTROLS) or sign == 127]
    if controls:
        return DataError(
            f"{source!r} is no text: it holds the byte 0x{byte:02x} in line {line}, which is not UTF-8, and "
            f"control characters such as 0x{controls[0]:02x}.\nName a {suffix} file."
        )
    return DataError(
        f"{source!r} is not UTF-8: line {line} holds the byte 0x{byte:02x}.\n"
        "Convert it, e.g. with `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` if it comes from Windows."
    )


def _line(content: bytes, at: int) -> int:
    return content.count(b"\n", 0, at) + 1


def _named(beginnings: dict[bytes, str], content: bytes) -> str | None:
    return next((name for beginning, name in beginnings.items() if content.startswith(beginning)), None)
