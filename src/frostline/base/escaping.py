"""Text of others, made fit to be shown: whatever would steer a terminal, or the order of its text, is written out."""

from __future__ import annotations

import unicodedata

# Signs without a look of their own, but for the two joiners, which scripts and emoji need.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}


def printable(text: str) -> str:
    r"""Write out what a terminal would obey instead of showing it.

    Args:
        text: A name, a label, a part of a message; of a text of several lines, the ends are written out too.

    Returns:
        The text with every control character, direction mark, line separator and half a character as an escape of
        Python: ``\x1b``, ``\u202e``, ``\n``.
    """
    if text.isprintable():
        return text
    return "".join(sign.encode("unicode_escape").decode() if _is_hidden(sign) else sign for sign in text)


def printable_lines(text: str) -> str:
    """Write out the same in a text of several lines, whose ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    r"""Write out the same signs in a JSON text, whose own ends of lines stay, by escapes of JSON: ``\u202e``."""
    return "".join(_json_escape(sign) if _is_hidden(sign) and sign != "\n" else sign for sign in text)


def _is_hidden(sign: str) -> bool:
    return unicodedata.category(sign) in _HIDDEN and sign not in _JOINERS


def _json_escape(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
