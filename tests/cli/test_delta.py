"""``frostline delta`` as a user meets it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from tests.checkpoints.folders import save_classifier, tensors_of, write
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "base")


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    return write(tmp_path / "tuned", tensors_of(base) | {"classifier.bias": torch.ones(2)}, base)


def test_there_and_back(frostline: Callable[..., Done], base: Path, tuned: Path, tmp_path: Path) -> None:
    done = frostline("delta", "save", base, tuned, tmp_path / "small")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"1 of 41 tensors and 1 files in '{tmp_path / 'small'}'")
    done = frostline("delta", "load", tmp_path / "small", "--out", tmp_path / "whole")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"41 tensors in '{tmp_path / 'whole'}', bit-identical")
    assert tiny.same_weights(tmp_path / "whole", tuned)
    assert frostline("diff", tuned, tmp_path / "whole", "--expect-frozen", "all").status == 0


def test_as_json(frostline: Callable[..., Done], base: Path, tuned: Path, tmp_path: Path) -> None:
    saved = json.loads(frostline("delta", "save", base, tuned, tmp_path / "small", "--json").out)
    assert saved["stored"] == ["classifier.bias"]
    loaded = json.loads(
        frostline("delta", "load", tmp_path / "small", "--out", tmp_path / "whole", "--base", base, "--json").out
    )
    assert (loaded["tensors"], loaded["same_file"]) == (41, True)


def test_what_is_refused(
    refused: Callable[..., str], frostline: Callable[..., Done], base: Path, tuned: Path, tmp_path: Path
) -> None:
    assert frostline("delta", "save", base, tuned, tmp_path / "small").status == 0
    assert "is in use" in refused("delta", "save", base, tuned, tmp_path / "small")
    assert "is in use" in refused("delta", "load", tmp_path / "small", "--out", base)
    assert "is not the base" in refused("delta", "load", tmp_path / "small", "--out", tmp_path / "x", "--base", tuned)
    assert "holds no delta.json" in refused("delta", "load", base, "--out", tmp_path / "x")
    (tmp_path / "small" / "config.json").write_text("{}", encoding="utf-8")
    assert "is damaged" in refused("delta", "load", tmp_path / "small", "--out", tmp_path / "x")
    assert "Missing option '--out'" in refused("delta", "load", tmp_path / "small")
    assert "no folder" in refused("delta", "save", tmp_path / "nowhere", tuned, tmp_path / "x")
