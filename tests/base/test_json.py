"""JSON files of others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from frostline.base.json import LARGEST, parse_json, read_json

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, "ü", "\\u00fc", "\\ud83d\\ude00"]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": [1, "ü", "ü", "😀"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('"\\ud800"', r"half a character, \\ud800"),
        ('"\\uD83D!"', "half a character"),
        ('{"\\udfff": 1}', "half a character"),
        ("{", "Expecting"),
        ("", "Expecting value"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "a.json")


def test_what_has_no_end_or_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match="it is no regular file"):
            read_json(tmp_path / name)
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(LARGEST + 1)  # a sparse file
    with pytest.raises(ValueError, match=r"it is larger than 67,108,864 bytes"):
        read_json(tmp_path / "large")
    (tmp_path / "small").write_text("[1]", encoding="utf-8")
    assert read_json(tmp_path / "small", 3) == [1]
    with pytest.raises(ValueError, match="it is larger than 2 bytes"):
        read_json(tmp_path / "small", 2)
