"""Texts that come from a pipe."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from frostline.cli import pipe
from frostline.cli.pipe import read_lines
from frostline.errors import DataError
from tests.processes import Started, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Puts a file with some bytes in the place of standard input."""
    with ExitStack() as opened:

        def _given(content: bytes) -> None:
            file = tmp_path / "stdin"
            file.write_bytes(content)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(file.open(encoding="utf-8")))

        yield _given


def test_a_text_per_line(given: Callable[[bytes], None]) -> None:
    given("\ufeffgood film\r\n这部电影\n two  words ".encode())
    assert read_lines() == ["good film", "这部电影", " two  words "]
    given(b"a\nb\nc\n")
    assert read_lines(2) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "Standard input is empty"), (b"good\nb\xffd\n", "Line 2 of standard input is not valid Unicode")],
)
def test_what_is_no_text(given: Callable[[bytes], None], content: bytes, said: str) -> None:
    given(content)
    with pytest.raises(DataError, match=said):
        read_lines()


def test_a_pipe_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            return b"\n"

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Endless()))
    monkeypatch.setattr(pipe, "_MOST", 1000)
    with pytest.raises(DataError, match="More than 0 MiB came"):
        read_lines()
    assert read_lines(3) == ["", "", ""]


def test_a_line_without_an_end(given: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_MOST", 1000)
    given(b"x" * 5000)
    with pytest.raises(DataError, match="More than"):
        read_lines()


def test_predicting_what_is_piped(
    frostline: Callable[..., Done], trained: Path, given: Callable[[bytes], None]
) -> None:
    one_by_one = frostline("predict", trained, "good film", "bad film").out
    for words in ((), ("-",)):
        given(b"good film\nbad film\n")
        assert frostline("predict", trained, *words).out == one_by_one
    given(b"good film\nbad film\n")
    rows = json.loads(frostline("predict", trained, "-", "--limit", 1, "--json").out)
    assert [row["text"] for row in rows] == ["good film"]


def test_what_is_refused(refused: Callable[..., str], trained: Path, given: Callable[[bytes], None]) -> None:
    given(b"good\n\nbad\n")
    assert "Text 2 is empty" in refused("predict", trained, "-")
    given(b"good\n")
    assert "one of the two" in refused("predict", trained, "-", "--data", "rows.csv")
    assert "--pair belongs to texts given one by one" in refused("predict", trained, "-", "--pair", "bad")


def test_a_pipe_that_nobody_writes_is_named(trained: Path) -> None:
    """One that is written late, read by a process of its own; a terminal or nothing is no pipe."""
    reader, writer = os.pipe()
    words = ("-m", "frostline", "predict", trained)
    running = Started(*words, streams={0: reader})
    os.close(reader)
    assert running.stderr.readline() == "Waiting for texts from standard input, one per line.\n"
    os.write(writer, b"good film\n")
    os.close(writer)
    assert running.done().stdout.endswith("good film\n")
    nothing = python(*words)
    assert nothing.returncode == 2
    assert "Give texts to predict" in nothing.stderr
