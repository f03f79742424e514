from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks import __main__ as command
from benchmarks import estimate
from benchmarks.row import NAMES, rows_named
from benchmarks.timing import RunFailedError
from tests.benchmarks.measured import repeat

if TYPE_CHECKING:
    from benchmarks.results import Repeat
    from benchmarks.row import Row

(TOP2,) = rows_named("top2")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the rows that were kept; every run takes no time."""
    names: list[str] = []

    def alternate(_row: object, *, repeats: int, **_: object) -> list[Repeat]:
        return [repeat(1.0, 4.0)] * repeats

    monkeypatch.setattr(command, "alternate", alternate)
    monkeypatch.setattr(command, "save", lambda result: names.append(result["row"]))
    return names


def test_a_full_measurement_is_kept(kept: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["top2"]) == 0
    assert kept == ["top2"]
    assert "4.00 (4.00–4.00)" in capsys.readouterr().out


def test_rows_that_run_the_same_are_run_once(kept: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def alternate(row: Row, *, repeats: int, **_: object) -> list[Repeat]:
        ran.append(row.name)
        return [repeat(1.0, 4.0)] * repeats

    monkeypatch.setattr(command, "alternate", alternate)
    assert command.main(["top2", "memory", "full"]) == 0
    assert ran == ["top2", "full"]
    assert kept == ["top2", "memory", "full"]


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["top3"])
    assert "no row is called 'top3'" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--rows", "64"], ["--repeats", "1"], ["--threads", "1"]])
def test_a_trial_is_not(options: list[str], kept: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["top2", *options]) == 0
    assert kept == []
    assert "nothing is kept" in capsys.readouterr().out


def test_a_row_that_this_machine_lacks_says_so(
    kept: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = replace(TOP2, unavailable=lambda: "no such device")
    monkeypatch.setattr(command, "rows_named", lambda _name: (row,))
    assert command.main(["top2"]) == 0
    assert kept == []
    assert capsys.readouterr().out.endswith("not available: no such device\n")


def test_a_failed_run_does_not_stop_the_others(
    kept: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunFailedError("it broke")

    monkeypatch.setattr(command, "alternate", fail)
    monkeypatch.setattr(command, "rows_named", lambda _name: (TOP2,))
    assert command.main([]) == 1
    assert capsys.readouterr().err.count("it broke") == len(NAMES)
    assert kept == []


@pytest.mark.parametrize("arguments", [["top9"], ["--repeats", "0"], ["--rows", "many"]])
def test_unusable_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_the_table_of_estimates_is_a_command_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "table", lambda threads: 40 + threads)
    assert command.main([command.ESTIMATE]) == 42


def test_a_line_per_plan_says_how_far_off_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"predict": estimate.Found(9.0, 110_000_000), "measure": estimate.Found(10.0, 100_000_000)}
    monkeypatch.setattr(estimate, "_run", lambda way, _place, _threads: found[way])
    assert estimate.table(1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(estimate.PLANS) + 2
    assert lines[1].startswith("minilm short head       fp32 memory")
    assert lines[1].endswith("-10%    +10%")
    assert lines[-2] == f"time: off by 10% in the middle, 10% at most, of {len(estimate.PLANS)} plans"
