"""Text of others, fit to be shown."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from _pytest.logging import LogCaptureHandler
from hypothesis import given
from hypothesis import strategies as st

from frostline.base.escaping import printable, printable_json, printable_lines
from frostline.base.logging import get_logger

if TYPE_CHECKING:
    from tests.cli.conftest import Done  # noqa: F401 - the fixtures' module is loaded by pytest

HOSTILE = "\x1b[2J\x9b31m\u202e\u2066\u200f\u061c\x07\x00\x7f\u2028\ufeff\U000e0041\ud800"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Straße, 这部电影, שלום, ", "plain, Straße, 这部电影, שלום, "),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),  # spaces
        ("👨\u200d👩\u200d👧, می\u200cخواهم", "👨\u200d👩\u200d👧, می\u200cخواهم"),  # joiners
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b", r"\x9b"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_nothing_hostile_is_left() -> None:
    for text in (printable(HOSTILE), printable_lines(HOSTILE), printable_json(HOSTILE)):
        assert text.isprintable()
    assert printable_lines("a\n\x1bb\n") == "a\n\\x1bb\n"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_means_the_same(value: object) -> None:
    text = printable_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value
    assert printable_lines(text) == text


def test_what_the_logger_says(capsys: pytest.CaptureFixture[str]) -> None:
    logger = get_logger()
    (handler,) = (one for one in logger.handlers if type(one) is not LogCaptureHandler)
    handler.handle(logging.LogRecord("frostline", logging.WARNING, "", 0, "a %s\nb", ("\x1b[2J",), None))
    assert capsys.readouterr().err == "a \\x1b[2J\nb\n"
