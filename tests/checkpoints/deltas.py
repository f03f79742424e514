"""What is done to deltas in their tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import save_file

import frostline as fl
from frostline.base.sealing import file_digest
from frostline.checkpoints.delta.delta import rebuild_delta
from frostline.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.checkpoints.folders import Tensors


def edit(delta: Path, **values: Any) -> None:
    """Change a delta's manifest."""
    file = delta / "delta.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def restore(delta: Path, tensors: Tensors) -> None:
    """Put other tensors into a delta, as one would who knows how it is made."""
    save_file(tensors, delta / "delta.safetensors")
    edit(delta, tensors_file=file_digest(delta / "delta.safetensors"))


def refusal(delta: Path, tmp_path: Path, **options: Any) -> str:
    """The refusal of a delta, which must be the same for both ways to load it and leave nothing behind."""
    with pytest.raises(ModelError) as caught:
        rebuild_delta(delta, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 2, text
    with pytest.raises(ModelError) as again:
        fl.load_delta(delta, **options)
    assert str(again.value) == text
    return text
