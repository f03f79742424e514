"""Sweeps as tasks of Ray, on a cluster of two workers; the rest needs no Ray."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from frostline.errors import ClusterError, MissingExtraError, SettingsError
from frostline.runs.sweep import on_ray
from frostline.runs.sweep.on_ray import connected
from frostline.runs.sweep.settings import SweepSettings
from frostline.runs.sweep.sweep import run_sweep
from frostline.runs.train_settings import TrainSettings
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostline.runs.sweep.result import SweepResult


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    tiny.write_csv(folder / "rows.csv", tiny.easy_rows(40))
    return folder


def sweep(model: Path, place: Path, name: str, ray: str | None, told: Callable[..., None]) -> SweepResult:
    rows = str(place / "rows.csv")
    run = TrainSettings(model=str(model), data=rows, eval_data="25%", epochs=2, batch_size=8, device="cpu")
    settings = SweepSettings(run=run, depths=(1, 2), rates=(1e-3, 3e-3), seeds=2, ray=ray)
    return run_sweep(settings, place / name, on_progress=told)


def metrics(folder: Path) -> dict[str, Any]:
    """Per trial what came of it, but for times and memory."""
    trials = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    return {json.dumps(trial["trial"]): (trial["metrics"], trial["trainable"]) for trial in trials}


@pytest.fixture(scope="module")
def here(quick_bert: Path, place: Path) -> dict[str, Any]:
    sweep(quick_bert, place, "here", None, lambda *_: None)
    return metrics(place / "here")


def running() -> list[psutil.Process]:
    """Processes of Ray that are in the middle of a trial."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::_run_trial" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_is_killed_is_made_good(here: dict[str, Any], quick_bert: Path, place: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install ray")
    killed: list[int] = []

    def told(what: str, done: float, total: float) -> None:
        until = time.monotonic() + 10
        while done and not killed and time.monotonic() < until:
            for process in running()[:1]:
                process.kill()
                killed.append(process.pid)

    found = sweep(quick_bert, place, "killed", "local", told)
    assert killed
    assert metrics(place / "killed") == here
    assert len(here) == 12  # two rates and two seeds at three depths
    assert any(note.startswith("The runs were tasks of a Ray cluster") for note in found.notes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_machines_that_do_not_see_the_folder_fill_stores_of_their_own(
    here: dict[str, Any], quick_bert: Path, place: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install ray")
    stores, own = place / "apart.partial" / "stores", Path(tempfile.gettempdir())
    seen: list[int] = []

    def told(what: str, done: float, total: float) -> None:
        if what.startswith("storing"):
            for mark in stores.iterdir():
                mark.unlink()
        elif what.startswith("seed"):
            assert not list(stores.iterdir())
            seen.append(len([store for store in own.glob("frostline-sweep-*/*") if store.is_dir()]))

    sweep(quick_bert, place, "apart", "local", told)
    assert max(seen) >= 2  # one per frost line
    assert metrics(place / "apart") == here
    assert not list(own.glob("frostline-sweep-*"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_fails_is_said_in_two_lines(quick_bert: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install ray")

    def fails(*_: Any) -> None:
        raise ValueError("odd rows")

    monkeypatch.setattr(on_ray, "_run_trial", fails)
    with pytest.raises(ClusterError) as failed:
        sweep(quick_bert, place, "failed", "local", lambda *_: None)
    assert str(failed.value) == (
        "A run on the Ray cluster failed: ValueError: odd rows\n"
        "The runs that are done are kept. Mend that, then go on with --resume."
    )


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'frostline\[ray\]'"), connected("local"):
        pass
    with connected(None):
        pass


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for Ray that knows no cluster."""

    def init(*_: Any, **__: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


@pytest.mark.parametrize("address", ["nowhere", "host:port", ":6379", "ray://head"])
def test_what_is_no_address_is_refused(no_ray: SimpleNamespace, address: str) -> None:
    with pytest.raises(SettingsError) as refused, connected(address):
        pass
    assert str(refused.value) == f"--ray is {address!r}.\nGive auto, local, HOST:PORT, or ray://HOST:PORT."


def test_an_address_where_nothing_answers_is_refused(no_ray: SimpleNamespace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens
        with (
            pytest.raises(SettingsError, match=r"no Ray cluster can be used there: .*refused"),
            connected(f"127.0.0.1:{port}"),
        ):
            pass
    said = r"(?s)--ray is 'auto', .*Could not find any running Ray.*set RAY_AUTH_MODE=token\.$"
    with pytest.raises(SettingsError, match=said), connected("auto"):
        pass
