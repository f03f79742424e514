from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import frostline as fl
from tests.checkpoints.folders import save_classifier
from tests.training import tiny
from tests.training.conftest import bert, datasets_cache, gpt2, little_is_measured, on_this_machine

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bert", "datasets_cache", "gpt2", "little_is_measured", "on_this_machine"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with its tokenizer."""
    folder = save_classifier(tmp_path_factory.mktemp("delta") / "base")
    tiny.wordpiece().save_pretrained(folder)
    return folder


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    """A fine-tune of the head, as save_pretrained writes it."""
    model = AutoModelForSequenceClassification.from_pretrained(base)
    with torch.no_grad():
        model.classifier.weight.add_(0.5)
        model.classifier.bias.add_(0.5)
    model.save_pretrained(tmp_path / "tuned")
    for file in base.glob("tokenizer*"):
        (tmp_path / "tuned" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "tuned"


@pytest.fixture
def delta(base: Path, tuned: Path, tmp_path: Path) -> Path:
    """What the one has and the other does not."""
    fl.save_delta(base, tuned, tmp_path / "delta")
    return tmp_path / "delta"
