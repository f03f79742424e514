"""Plans that freeze what the checkpoint lacks, and what therefore is random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.fixture
def lacking(bert: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a checkpoint without the tensors whose names begin so."""

    def _make(beginning: str) -> Path:
        folder = tiny.copy_of(bert, tmp_path / "lacking")
        kept = {name: value for name, value in tiny.weights(folder).items() if not name.startswith(beginning)}
        save_file(kept or {"other": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return _make


@pytest.mark.parametrize(
    ("beginning", "words", "phrase"),
    [
        (
            "pooler",
            ["--freeze", "backbone"],
            "2 tensors that the plan 'freeze backbone' freezes (bert.pooler.dense.weight",
        ),
        (
            "pooler",
            ["--train-only", "head"],
            "Freeze what it has ('embeddings, layers[:]'), or pass --allow-new-frozen.",
        ),
        ("encoder.layer.0.output.dense.bias", ["--freeze", "layers[0]"], "lacks 1 tensor that the plan"),
        (
            "",
            ["--freeze", "embeddings"],
            "Let them train, name a checkpoint that has them, or pass --allow-new-frozen.",
        ),
        ("nothing", ["--freeze", "head"], "(classifier.weight, classifier.bias): they would stay random."),
    ],
)
def test_what_is_random_is_not_frozen_unasked(
    frostline: Callable[..., Done],
    train: Callable[..., Done],
    refused_train: Callable[..., str],
    lacking: Callable[[str], Path],
    beginning: str,
    words: list[str],
    phrase: str,
) -> None:
    model = lacking(beginning)
    assert phrase in refused_train("--model", model, *words)
    assert "warning: new-but-frozen" in frostline("check", model, *words).out
    assert train("--model", model, *words, "--allow-new-frozen").status == 0


def test_what_the_checkpoint_lacks_may_train(train: Callable[..., Done], lacking: Callable[[str], Path]) -> None:
    assert train("--model", lacking("pooler"), "--freeze", "embeddings, layers[:]").status == 0
