from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from frostline.cli.app import run
from tests.training import tiny
from tests.training.conftest import bert, datasets_cache, gpt2, little_is_measured, on_this_machine, quick_bert, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["bert", "datasets_cache", "gpt2", "little_is_measured", "on_this_machine", "quick_bert", "table"]


@dataclass(frozen=True)
class Done:
    """What a command left on the terminal."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _logger_as_before() -> Iterator[None]:
    """The command lowers the library's voice for good; other tests want to hear it."""
    logger = logging.getLogger("frostline")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not depend on the terminal in which the tests run."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def frostline(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command in this process."""

    def _run(*words: Any) -> Done:
        capsys.readouterr()
        status = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return _run


@pytest.fixture
def refused(frostline: Callable[..., Done], tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must end with status 2 and one or two lines, and leave the folder as it was."""

    def _run(*words: Any) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        folders = {path for path in tmp_path.rglob("*") if path.is_dir()}
        done = frostline(*words)
        assert done.status == 2, done
        assert done.err.startswith("frostline: "), done.err
        assert 1 <= len(done.err.splitlines()) <= 2, done.err
        assert "Traceback" not in done.err
        assert done.out == ""
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
        assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders
        return done.err

    return _run


@pytest.fixture
def train(frostline: Callable[..., Done], bert: Path, table: Path, tmp_path: Path) -> Callable[..., Done]:
    """Trains for one epoch; later words win."""

    def _train(*words: Any) -> Done:
        usual = ("--model", bert, "--data", table, "--out", tmp_path / "out", "--epochs", 1, "--batch-size", 8)
        return frostline("train", *usual, *words)

    return _train


@pytest.fixture
def refused_train(refused: Callable[..., str], bert: Path, table: Path, tmp_path: Path) -> Callable[..., str]:
    def _train(*words: Any) -> str:
        return refused("train", "--model", bert, "--data", table, "--out", tmp_path / "out", *words)

    return _train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, quick_bert: Path, datasets_cache: Path) -> Path:
    """The folder of a finished run; it is not to be changed."""
    import datasets

    from frostline.runs.train import run_training
    from frostline.runs.train_settings import TrainSettings

    folder = tmp_path_factory.mktemp("trained")
    file = tiny.write_csv(folder / "easy.csv", tiny.easy_rows(24))
    settings = TrainSettings(
        model=str(quick_bert),
        data=str(file),
        eval_data=str(file),
        freeze="embeddings",
        epochs=4,
        batch_size=8,
        learning_rate=3e-3,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", datasets_cache)
        return run_training(settings, folder / "model").folder
