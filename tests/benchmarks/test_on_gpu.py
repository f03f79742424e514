from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks import on_gpu, page
from benchmarks.row import rows_named
from benchmarks.timing import RunFailedError
from tests.benchmarks.measured import repeat

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.results import Repeat
    from benchmarks.row import Row

NAMES = [row.name for row in rows_named("gpu")]


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A device is there, tests pass, and runs take no time; gives the rows that ran."""
    ran: list[str] = []

    def alternate(row: Row, **_: object) -> list[Repeat]:
        ran.append(row.name)
        return [repeat(1.0, 4.0)]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    monkeypatch.setattr(on_gpu, "alternate", alternate)
    monkeypatch.setattr(subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 0, "8 passed\n", ""))
    return ran


def test_without_a_device_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert on_gpu.main(tmp_path) == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_one_file_holds_all_and_the_page_reads_it(tmp_path: Path, on_device: list[str]) -> None:
    assert on_gpu.main(tmp_path) == 0
    assert sorted(on_device) == sorted(NAMES * 3)
    (file,) = tmp_path.iterdir()
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["machine"]["gpu"] == "a card"
    assert found["tests"]["tail"] == ["8 passed"]
    assert list(found["rows"]) == NAMES
    lines = [line for line in page.page(tmp_path).splitlines() if line.startswith("| `gpu-")]
    assert len(lines) == 3
    assert all("4.00 (4.00–4.00)" in line for line in lines)


def test_what_takes_long_is_run_once(tmp_path: Path, on_device: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "_LONGEST", 0)
    assert on_gpu.main(tmp_path) == 0
    assert on_device == NAMES


def test_a_run_and_tests_that_fail(tmp_path: Path, on_device: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(row: Row, **_: object) -> Any:
        raise RunFailedError(f"no memory for {row.name}")

    monkeypatch.setattr(on_gpu, "alternate", fails)
    assert on_gpu.main(tmp_path) == 1
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert found["failed"] == {name: f"no memory for {name}" for name in NAMES}
    assert on_device == []
