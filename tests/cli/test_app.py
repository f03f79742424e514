"""How errors become messages and exit statuses; and what only a process of its own can show."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import torch

from frostline.cli.progress import TrainingProgress
from frostline.errors import DriftError, FrostlineError, SelectorError
from frostline.training.checkpoints import newest_sound
from tests.processes import Started
from tests.thinning import slow
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

COMMANDS = ("inspect", "train", "predict", "evaluate", "check", "delta", "diff", "verify", "probe", "demo", "store")


def test_version_and_help(frostline: Callable[..., Done]) -> None:
    assert frostline("--version").out == f"frostline {version('frostline')}\n"
    for words in ((), ("--help",)):
        done = frostline(*words)
        assert done.status == 0
        assert all(command in done.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_options(frostline: Callable[..., Done], command: str) -> None:
    done = frostline(command, "--help")
    assert (done.status, done.err) == (0, "")
    assert frostline(command, "-h") == done
    assert done.out.splitlines()[0].startswith(f"Usage: frostline {command}")


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["--nosuch"], "No such option: --nosuch"),
        (["verify"], "Missing argument 'DIR'"),
        (["train", "--out", "x"], "Missing option '--data'"),
        (["train", "--data"], "--data"),
        (["train", "--data", "x", "--batch-size", "1e20"], "'1e20'"),
        (["train", "--data", "x", "--batch-size=1e20"], "'1e20'"),
        (["predict", "x", "--batch-size", "0", "y"], "given was '0'"),
        (["train", "--data", "x", "--dtype", "int4"], "'int4' is not one of 'fp32', 'bf16', 'fp16'."),
    ],
)
def test_words_that_are_no_command(refused: Callable[..., str], words: list[str], phrase: str) -> None:
    text = refused(*words)
    assert phrase in text
    assert text.splitlines()[1].startswith("See: frostline")
    assert text.splitlines()[1].endswith("--help")


@pytest.mark.parametrize("kind", [FrostlineError, SelectorError])
def test_an_error_raised_on_purpose(
    frostline: Callable[..., Done], bert: Path, monkeypatch: pytest.MonkeyPatch, kind: type[FrostlineError]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise kind("what is wrong\nhow to mend it")

    monkeypatch.setattr("frostline.evidence.inspect.inspection.open_skeleton", fail)
    done = frostline("inspect", bert)
    assert (done.status, done.out, done.err) == (2, "", "frostline: what is wrong\nhow to mend it\n")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "frostline: There is no room left on the disk"),
    ],
)
def test_what_the_system_raises(
    frostline: Callable[..., Done],
    bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    text: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("frostline.evidence.inspect.inspection.open_skeleton", fail)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1, raising=False)
    done = frostline("inspect", bert)
    assert done.status == status
    assert done.err.startswith(text)
    assert len(done.err.splitlines()) <= 2


def test_a_mistake_of_ours_is_not_hidden(
    frostline: Callable[..., Done], bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frostline.evidence.inspect.inspection.open_skeleton", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        frostline("inspect", bert)


def test_drift_is_status_1_and_the_model_is_there(
    frostline: Callable[..., Done], bert: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meddle(TrainingProgress):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with torch.no_grad():
                kwargs["model"].get_parameter("bert.embeddings.LayerNorm.bias")[0] += 1

    monkeypatch.setattr("frostline.cli.progress.TrainingProgress", Meddle)
    words = ("train", "--model", bert, "--data", table, "--out", tmp_path / "out", "--epochs", 1)
    done = frostline(*words, "--freeze", "embeddings")
    assert done.status == DriftError.exit_status == 1
    assert done.err.startswith("frostline: Drift: 1 of ")
    assert "bert.embeddings.LayerNorm.bias" in done.err
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert json.loads((tmp_path / "out" / "proof.json").read_text(encoding="utf-8"))["ok"] is False


# In a process of its own


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return kept | {"HF_ENDPOINT": tiny.CLOSED_PORT, "OMP_NUM_THREADS": "1"} | changes


def started(folder: Path, *words: Any, **options: Any) -> Started:
    return Started("-m", "frostline", *words, env=environment(HF_DATASETS_CACHE=str(folder / "cache")), **options)


def wait_for(condition: Callable[[], bool], process: Started) -> None:
    until = time.monotonic() + 90
    while not condition():
        assert process.is_running, process.done()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_ctrl_c_writes_a_checkpoint_from_which_the_same_model_comes(
    frostline: Callable[..., Done], bert: Path, tmp_path: Path
) -> None:
    table = tiny.write_csv(tmp_path / "rows.csv", tiny.rows(240))
    words = ["train", "--model", bert, "--data", table, "--freeze", "embeddings", "--epochs", 2, "--batch-size", 4]
    out = tmp_path / "out"
    process = started(tmp_path, *words, "--out", out)
    checkpoints = tmp_path / "out.partial" / "checkpoints"
    wait_for((checkpoints / "checkpoint-60" / "trainer_state.json").is_file, process)
    time.sleep(0.1)
    process.interrupt()
    done = process.done()
    assert done.returncode == 130
    assert not out.exists()
    left = max(checkpoints.iterdir(), key=lambda place: int(place.name.rpartition("-")[2]))
    assert done.stderr.splitlines() == [
        "Stopping: a checkpoint is written after this step. Press Ctrl-C again to stop at once.",
        f"Stopped; {left.name} is kept. Go on with the same settings and --resume.",
    ]
    assert 60 < int(left.name.rpartition("-")[2]) < 120
    resumed = frostline(*words, "--out", out, "--resume")
    assert resumed.status == 0, resumed.err
    assert f"Going on from {left.name}." in resumed.out.splitlines()
    assert frostline(*words, "--out", tmp_path / "whole").status == 0
    assert tiny.same_weights(out, tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.slow
def test_a_lost_terminal_writes_a_checkpoint(bert: Path, tmp_path: Path) -> None:
    """With a bar on it, which can be drawn no more."""
    table = tiny.write_csv(tmp_path / "rows.csv", tiny.rows(400))
    checkpoints = tmp_path / "out.partial" / "checkpoints"
    words = ("--model", bert, "--data", table, "--eval", table, "--epochs", 3, "--batch-size", 4)
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "frostline", "train", *map(str, words), "--out", str(tmp_path / "out")],
        env=environment(HF_DATASETS_CACHE=str(tmp_path / "cache")),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,  # noqa: PLW1509 - no other thread runs
    )
    os.close(theirs)
    until = time.monotonic() + 90
    while not (checkpoints / "checkpoint-100" / "files.json").is_file():
        assert process.poll() is None
        assert time.monotonic() < until
        if select.select([ours], [], [], 0.02)[0]:
            os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait(timeout=60) == 130
    (newest, *_) = sorted((int(place.name.rpartition("-")[2]) for place in checkpoints.iterdir()), reverse=True)
    assert 100 < newest < 300
    assert newest_sound(checkpoints).name == f"checkpoint-{newest}"


def test_ctrl_c_before_the_first_step_leaves_nothing(bert: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(tmp_path, "train", "--model", bert, "--data", table, "--out", out)
    wait_for((tmp_path / "out.partial" / ".lock").is_file, process)
    time.sleep(0.1)  # by now it reads the table or loads the model, which takes seconds
    process.interrupt()
    done = process.done()
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert not (tmp_path / "out.partial").exists()


def test_a_full_disk_as_the_system_reports_it(bert: Path, table: Path, tmp_path: Path) -> None:
    """No file may grow beyond 20 kB, which the weights need and the other files do not."""
    (tmp_path / "cache").mkdir()
    out = tmp_path / "out"
    words = ("train", "--model", bert, "--data", table, "--out", out, "--json")
    done = started(tmp_path, *words, file_bytes=20_000).done()
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"frostline: There is no room left to write '{out}'"), done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not out.exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(("closed", "name", "status"), [(">&-", "model", 0), *slow(("2>&-", "nosuch", 2))])
def test_a_stream_that_is_closed(tmp_path: Path, closed: str, name: str, status: int) -> None:
    tiny.save_bert(tmp_path / "model")
    command = f'"{sys.executable}" -m frostline inspect {name} {closed}'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")


def test_a_reader_that_leaves_early(tmp_path: Path) -> None:
    """With more output than a buffer holds, so that the closed pipe shows while the command still runs."""
    model = tiny.save_bert(tmp_path / "deep", num_hidden_layers=60)
    words = [sys.executable, "-m", "frostline", "inspect", str(model), "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()
