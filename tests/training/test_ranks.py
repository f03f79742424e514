"""Two processes that share a store train as one process does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from tests.processes import Started
from tests.thinning import slow


def ranks(count: int, module: str, *words: Any) -> str:
    """Run a module as so many processes of one training, as torchrun starts them; give what they say."""
    # As of torchrun, the store belongs to who starts them, on whatever port is free.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    own = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    own |= {"TORCHELASTIC_USE_AGENT_STORE": True}
    processes = [
        Started("-m", module, *words, env=os.environ | {name: str(value) for name, value in of_rank.items()})
        for of_rank in (own | {"RANK": rank, "LOCAL_RANK": rank} if count > 1 else {} for rank in range(count))
    ]
    done = [process.done() for process in processes]
    assert [one.returncode for one in done] == [0] * count, done
    return "".join(one.stderr for one in done)


def run(folder: Path, store: str, processes: int) -> list[dict[str, Any]]:
    folder.mkdir()
    said = ranks(processes, "tests.training.rank", folder, store, 8 // processes)
    assert said.count("Engine: ") == 1
    return [json.loads((folder / f"report-{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]


def _paths(line: str) -> str:
    """Which paths a run takes, but for what is measured anew in each process: whether oneDNN is faster."""
    return line.split(" activations ", maxsplit=1)[0].replace(", matrix products by oneDNN", "")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone") / "one"
    (report,) = run(folder, "memory", 1)
    return folder, report


@pytest.mark.parametrize("store", ["memory", *slow("disk")])
def test_two_processes(tmp_path: Path, alone: tuple[Path, dict[str, Any]], store: str) -> None:
    shared = Path("/dev/shm")  # noqa: S108
    before = set(shared.glob("frostline-*")) if shared.is_dir() else set()
    reports = run(tmp_path / "two", store, 2)
    own, other = load_file(alone[0] / "weights"), load_file(tmp_path / "two" / "weights")
    assert own.keys() == other.keys()
    assert all(torch.allclose(own[name], other[name], atol=1e-5, rtol=0) for name in own)
    assert [report["eval"] for report in reports] == [pytest.approx(alone[1]["eval"], abs=1e-5)] * 2
    assert sum(report["computed"] for report in reports) == alone[1]["computed"] > 300
    assert all(report["computed"] > 40 for report in reports)
    assert all(report["rows"] == alone[1]["rows"] for report in reports)
    assert _paths(reports[0]["line"]) == _paths(alone[1]["line"])
    assert {entry.name for entry in shared.glob("frostline-*")} <= {entry.name for entry in before}
    assert (tmp_path / "two" / "store").is_dir() == (store == "disk")


def by_phases(folder: Path, processes: int) -> dict[str, Any]:
    folder.mkdir()
    ranks(processes, "tests.training.phased_rank", folder, 8 // processes)
    told: dict[str, Any] = json.loads((folder / "phases.json").read_text(encoding="utf-8"))
    return told


def test_two_processes_by_phases(tmp_path: Path) -> None:
    alone, both = by_phases(tmp_path / "one", 1), by_phases(tmp_path / "two", 2)
    own, other = load_file(tmp_path / "one" / "weights"), load_file(tmp_path / "two" / "weights")
    assert all(torch.allclose(own[name], other[name], atol=1e-5, rtol=0) for name in own)
    assert both == alone
    assert both["ok"] is True
    assert len(both["phases"]) == 4
