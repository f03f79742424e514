"""What runs on a CUDA device is what ``transformers.Trainer`` does there, and is proven just the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import frostline as fl
from tests.training import tokens
from tests.training.beside import HELD_OUT, ROWS, assert_alike, both, losses, replayed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu

ON_CUDA: dict[str, Any] = {"use_cpu": False}


@pytest.mark.parametrize("store", ["memory", "disk", "off"])
def test_the_same_curve(tmp_path: Path, store: str) -> None:
    ours, theirs = both(tmp_path, store=store, store_dir=str(tmp_path / "store"), **ON_CUDA)
    assert_alike(ours, theirs)
    assert next(ours.model.parameters()).is_cuda  # type: ignore[union-attr]
    assert (replayed(ours) > 0) == (store != "off")
    assert ours.proof is not None
    assert ours.proof.ok


def test_everything_trains(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, freeze=None, **ON_CUDA)
    assert_alike(ours, theirs)


def test_in_bf16(tmp_path: Path) -> None:
    if not torch.cuda.is_bf16_supported():
        pytest.skip("no bf16 on this device")
    ours, theirs = both(tmp_path, bf16=True, **ON_CUDA)
    assert losses(ours) == pytest.approx(losses(theirs), abs=2e-2)
    assert replayed(ours) > 0


def test_what_was_stored_on_one_device_is_none_of_another(tmp_path: Path) -> None:
    computed = []
    for use_cpu in (True, False, False):
        args = tokens.arguments(
            tmp_path / "out", freeze=tokens.LOWER, store="disk", store_dir=str(tmp_path / "store"), use_cpu=use_cpu
        )
        trainer = fl.Trainer(tokens.model(), args, tokens.collate, ROWS)
        trainer.train()
        assert trainer.engine_report is not None
        computed.append(trainer.engine_report.computed)
    assert computed[0] == computed[1] > 0
    assert computed[2] == 0


def test_predictions(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, **ON_CUDA)
    trainers: tuple[Any, ...] = (ours, theirs)
    own, other = (torch.from_numpy(trainer.predict(HELD_OUT).predictions) for trainer in trainers)
    torch.testing.assert_close(own, other, atol=1e-4, rtol=0)


def test_the_self_check_and_the_probe() -> None:
    model: Any = tokens.model()
    model.cuda()
    fl.freeze(model, tokens.LOWER)
    batch = {name: value.cuda() for name, value in tokens.collate(ROWS.select(range(8)).to_list()).items()}
    check = fl.selfcheck(model, batch)
    assert check.boundary == "layer 2"
    assert fl.probe(model, batch).ok
