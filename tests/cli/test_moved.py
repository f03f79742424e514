"""Runs and deltas that are looked at from another folder than they were made in: the hub is never asked for a path."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.fixture
def desk(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model whose relative path could be a hub name."""
    for module in ("tensor_files", "headers", "skeleton", "classifier"):
        monkeypatch.setattr(f"frostline.checkpoints.{module}.hub_in_reach", lambda: pytest.fail("the hub was asked"))
    desk = tmp_path / "desk"
    tiny.copy_of(bert, desk / "models" / "bert")
    tiny.write_csv(desk / "rows.csv", tiny.rows())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(desk)
    return desk


def test_a_run(
    frostline: Callable[..., Done], refused: Callable[..., str], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--data", "rows.csv", "--freeze", "embeddings", "--epochs", 1)
    assert frostline("train", "--model", "models/bert", *words, "--out", "out").status == 0
    noted = json.loads((desk / "out" / "metrics.json").read_text(encoding="utf-8"))["settings"]["model"]
    assert noted == str(desk / "models" / "bert")
    card = (desk / "out" / "README.md").read_text(encoding="utf-8")
    assert "fine-tuned from `bert`" in card
    assert str(desk) not in card
    for place in ("out", "../elsewhere"):
        monkeypatch.chdir(desk / place)
        done = frostline("verify", desk / "out")
        assert done.status == 0, done
        assert f"39 began as they are in {noted}." in done.out
    shutil.move(desk / "models", desk / "other")
    assert f"There is no folder '{noted}'.\nName the base of this run with --base." in refused("verify", desk / "out")
    assert frostline("verify", desk / "out", "--base", desk / "other" / "bert").status == 0


def test_a_delta(
    frostline: Callable[..., Done], refused: Callable[..., str], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--data", "rows.csv", "--freeze", "embeddings", "--epochs", 1)
    assert frostline("train", "--model", "models/bert", *words, "--out", "out").status == 0
    assert frostline("delta", "save", "models/bert", "out", "small").status == 0
    monkeypatch.chdir(desk / ".." / "elsewhere")
    assert frostline("delta", "load", desk / "small", "--out", "whole").status == 0
    assert frostline("inspect", desk / "small").status == 0
    shutil.move(desk / "models", desk / "other")
    text = f"There is no folder '{desk / 'models' / 'bert'}'.\nName the base of the delta with --base"
    assert text in refused("delta", "load", desk / "small", "--out", "again")
