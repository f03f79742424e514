"""A LightningModule's fit on the fast paths, in a block of `fl.fast` and by the callback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader

import frostline as fl
from tests.processes import python
from tests.training import tokens

lightning: Any = pytest.importorskip("lightning")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

if TYPE_CHECKING:
    from pathlib import Path

ROWS: Any = tokens.rows()


class Module(lightning.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.model = tokens.model()
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss: torch.Tensor = self.model(**batch).loss
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.losses.append(self.model(**batch).loss.item())

    def configure_optimizers(self) -> Any:
        trains = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trains, lr=1e-3, eps=1e-5)


def fit(module: Any, folder: Path, *callbacks: Any, **options: Any) -> None:
    torch.manual_seed(0)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **options,
    )
    loaders: list[Any] = [DataLoader(ROWS, 8, collate_fn=tokens.collate, shuffle=shuffle) for shuffle in (True, False)]
    trainer.fit(module.train(), *loaders)


def plainly(folder: Path, **options: Any) -> list[float]:
    module = Module()
    fl.freeze(module, tokens.LOWER)
    fit(module, folder, **options)
    return module.losses


def test_a_block_around_fit(tmp_path: Path) -> None:
    module = Module()
    fl.freeze(module, tokens.LOWER)
    with fl.fast(module, store="memory") as engine:
        fit(module, tmp_path)
    assert engine.report is not None
    assert engine.report.rows == len(ROWS)
    assert module.losses == pytest.approx(plainly(tmp_path), abs=1e-4)


def test_the_callback(tmp_path: Path) -> None:
    module, callback = Module(), fl.LightningCallback(tokens.LOWER, store="memory")
    fit(module, tmp_path, callback, accumulate_grad_batches=2)
    assert callback.engine is not None
    assert callback.engine.report is not None
    assert callback.engine.report.rows == len(ROWS)
    assert "forward" not in vars(module.model)
    assert module.losses == pytest.approx(plainly(tmp_path, accumulate_grad_batches=2), abs=1e-4)


def test_the_callback_that_trains_only(tmp_path: Path) -> None:
    module, callback = Module(), fl.LightningCallback(train_only="layers[2:], pooler, head")
    fit(module, tmp_path, callback)
    assert callback.engine is not None
    assert callback.engine.report is not None
    assert callback.engine.report.check.boundary == "layer 2"


class Failing(Module):
    def validation_step(self, batch: Any, index: int) -> None:
        raise ZeroDivisionError


def test_a_fit_that_fails(tmp_path: Path) -> None:
    module, callback = Failing(), fl.LightningCallback(tokens.LOWER, store="memory")
    with pytest.raises(ZeroDivisionError):
        fit(module, tmp_path, callback)
    assert "forward" not in vars(module.model)


def test_without_lightning() -> None:
    code = "import sys\nfor name in ('lightning', 'pytorch_lightning'): sys.modules[name] = None\n"
    code += "import importlib.util as u\nfind = u.find_spec\n"
    code += "u.find_spec = lambda name, *more: None if 'lightning' in name else find(name, *more)\n"
    code += "import frostline\nfrostline.LightningCallback"
    done = python("-c", code)
    assert "pip install 'frostline[lightning]'" in done.stderr


class Scheduled(Module):
    """One whose rate falls from step to step."""

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("eval_loss", self.model(**batch).loss)

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 15)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


PHASES = [
    fl.Phase("head", until="plateau of eval_loss for 1 evaluation", lr=1e-12),
    fl.Phase("layers[3], head", until="2 steps", lr={"head": "2x"}),
    fl.Phase("all", layer_decay=0.5),
]


def test_a_schedule(tmp_path: Path) -> None:
    module, callback = Scheduled(), fl.LightningCallback(schedule=PHASES)
    fit(module, tmp_path, callback)
    assert callback.phases is not None
    proofs = callback.phases.run.proofs
    assert [(one.from_step, one.to_step) for one in proofs] == [(0, 10), (10, 12), (12, 15)]
    assert [one.drifted for one in proofs] == [(), (), ()]
    assert [one.moved for one in proofs][1:] == [18, 73]


@pytest.mark.parametrize("stop", [3, 11, 12])
def test_a_schedule_goes_on(tmp_path: Path, stop: int) -> None:
    """Lightning does not go on within an epoch with the batches that are left, so that an epoch is one batch here."""
    phases = [fl.Phase("head", until="11 steps", lr=1e-2), fl.Phase("layers[3], head", until="2 steps"), PHASES[2]]
    loader: Any = DataLoader(ROWS[:8], 8, collate_fn=tokens.collate)

    class Stops(lightning.Callback):  # type: ignore[misc]
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    def fitted(*callbacks: Any, **options: Any) -> dict[str, torch.Tensor]:
        module = Scheduled()
        trainer = lightning.Trainer(
            max_epochs=15,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=tmp_path,
            callbacks=[fl.LightningCallback(schedule=phases), *callbacks],
        )
        trainer.fit(module.train(), loader, **options)
        return {name: tensor.clone() for name, tensor in module.state_dict().items()}

    whole = fitted(Stops())
    again = fitted(ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
