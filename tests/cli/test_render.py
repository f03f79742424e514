from __future__ import annotations

import io
import json
import math
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from frostline.cli import progress
from frostline.cli.progress import TrainingProgress
from frostline.cli.render import metrics_line, print_json, print_table, print_text
from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_json_is_valid_whatever_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": ({"d": math.nan, "e": None}, True, "NaN"), "ß": 1}
    print_json(values)
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": None, "b": [None, None, 1.5], "c": [{"d": None, "e": None}, True, "NaN"], "ß": 1}
    assert "ß" in text
    assert "\n  " in text


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("[red]no markup[/red] " + "x" * 300, "", "two")
    assert capsys.readouterr().out == "[red]no markup[/red] " + "x" * 300 + "\n\ntwo\n"


def test_cells_of_a_table_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("unit", "count"), [("[bold]head[/bold]", "1"), ("layers[:8]", "12")], ("count",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["unit", "count"]
    assert lines[2].split() == ["[bold]head[/bold]", "1"]
    assert lines[3].endswith("12")
    assert len(lines[2]) == len(lines[3])  # the numbers are aligned to the right
    assert all(line == line.rstrip() for line in lines)


def test_a_table_where_the_terminal_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", screen)
    print_table(("unit",), [("head",)])
    assert screen.buffer.getvalue() == b"unit\n----\nhead\n"


def test_a_terminal_wraps_what_is_not_there_to_be_copied(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    print_text("a few words", "  one\ntwo three four")
    print_text("a few words", whole=True)
    assert capsys.readouterr().out == "a few\nwords\n  one\ntwo three\nfour\na few words\n"


def test_cells_on_a_terminal_do_not_steer_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("unit", "count"), [("\x1b[2J\u202ehead\n", "\x9b31m")])
    text = capsys.readouterr().out
    assert r"\x1b[2J\u202ehead\n" in text
    assert not {"\x1b[2J", "\u202e", "\x9b"} & {text[at : at + size] for at in range(len(text)) for size in (1, 4)}


def test_metrics_have_the_loss_last() -> None:
    assert metrics_line({"loss": 0.5, "accuracy": 1.0, "macro_f1": 0.12345}) == (
        "accuracy 1.0000, macro F1 0.1235, loss 0.5000"
    )
    assert metrics_line({}) == ""


def run(folder: Path, bert: Path, table: Path, shown: TrainingProgress) -> None:
    settings = TrainSettings(model=str(bert), data=str(table), eval_data=str(table), epochs=2, batch_size=8)
    run_training(settings, folder / "out", callbacks=[shown])


@pytest.mark.parametrize("quiet", [False, True])
def test_in_a_pipe_a_line_per_epoch_or_none(
    tmp_path: Path, bert: Path, table: Path, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    run(tmp_path, bert, table, TrainingProgress(quiet=quiet))
    lines = capsys.readouterr().out.splitlines()
    if quiet:
        assert lines == []
        return
    first, second = lines
    assert first.startswith("epoch 1: training loss 0.")
    assert second.startswith("epoch 2: training loss 0.")
    assert "; evaluation: accuracy 0." in first
    assert "runtime" not in first


def test_on_a_terminal_a_bar_that_is_taken_away(
    tmp_path: Path, bert: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()

    def terminal(**_: Any) -> Console:
        return Console(file=screen, force_terminal=True, width=100)

    monkeypatch.setattr(progress, "Console", terminal)
    shown = TrainingProgress()
    run(tmp_path, bert, table, shown)
    drawn = screen.getvalue()
    assert "0/6" in drawn
    assert "6/6" in drawn
    assert "epoch 2" in drawn
    assert drawn.endswith("\x1b[2K")  # the line of the bar is cleared at the end
    assert shown._bar is None
    shown.stop()
