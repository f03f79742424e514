"""The bar of `diff` and `delta`: on a terminal only."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import rich.console

from frostline.checkpoints.meter import silent
from frostline.cli.bar import byte_bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Done


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    plain = rich.console.Console

    def console(**options: Any) -> rich.console.Console:
        return plain(file=screen, force_terminal=True, width=100) if options.get("stderr") else plain(**options)

    monkeypatch.setattr(rich.console, "Console", console)
    return screen


def test_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with byte_bar("comparing") as report:
        assert report is silent
        report(1, 2)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with byte_bar("comparing") as report:
        report(500_000, 2_000_000)
    assert "comparing" in screen.getvalue()
    assert "0.5/2.0 MB" in screen.getvalue()


def test_diff_and_delta_show_it(
    frostline: Callable[..., Done], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch)
    assert frostline("diff", bert, bert).status == 0
    assert "comparing" in screen.getvalue()
    assert frostline("delta", "save", bert, bert, tmp_path / "delta").status == 0
    assert "comparing and hashing" in screen.getvalue()
    screen.seek(screen.truncate(0))
    assert frostline("delta", "load", tmp_path / "delta", "--out", tmp_path / "again").status == 0
    assert "hashing" in screen.getvalue()
