"""Where the activations of a training run are kept, and what is said of it."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from datasets import Dataset
from transformers import TrainerCallback

import frostline as fl
from frostline.store.listing import describe, verify
from frostline.store.packed import Packed
from frostline.store.store import Store
from tests.thinning import slow
from tests.training import tokens
from tests.training.beside import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("heard")


@pytest.mark.parametrize("store", [*slow("memory"), "disk"])
def test_interrupted_while_the_store_is_filled(tmp_path: Path, store: str) -> None:
    class Stop(TrainerCallback):
        stops = True

        def on_fill(self, done: int, total: int) -> None:
            assert 0 < done <= total == 400
            if self.stops and done > 200:
                raise KeyboardInterrupt

    def train(callback: TrainerCallback) -> fl.Trainer:
        trainer = fl.Trainer(
            tokens.model(),
            tokens.arguments(
                tmp_path, freeze=tokens.LOWER, store=store, store_dir=str(tmp_path / "store"), max_steps=60
            ),
            tokens.padding(),
            Dataset.from_list(tokens.rows(400)),
            callbacks=[callback],
        )
        trainer.train()
        return trainer

    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        train(stop)
    stop.stops = False
    report = train(stop).engine_report
    assert report is not None
    assert report.rows == 398  # two texts are there twice
    assert (report.computed < 200) == (store == "disk")


def test_why_no_earlier_store_serves_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = []
    for depth in ("layers[:2]", "layers[:2]", "layers[:1]"):
        caplog.clear()
        args = tokens.arguments(
            tmp_path, freeze=f"embeddings, {depth}", store="disk", store_dir=str(tmp_path / "store"), max_steps=1
        )
        fl.Trainer(tokens.model(), args, tokens.collate, ROWS).train()
        told.append([record.getMessage() for record in caplog.records if "a new one" in record.getMessage()])
    assert told[:2] == [[], []]
    assert len(told[2]) == 1
    assert "taken at" in told[2][0]


def test_a_budget_that_all_on_disk_exceeds_is_no_matter(tmp_path: Path) -> None:
    """What is on disk from an earlier run is used; only what is not there has no room."""

    def line(folder: str, budget: str | None) -> str:
        args = tokens.arguments(tmp_path, freeze=tokens.LOWER, store="disk", store_dir=folder, store_budget=budget)
        trainer = fl.Trainer(tokens.model(), args, tokens.collate, ROWS)
        trainer.train()
        return str(trainer.engine_report)

    folder, other = str(tmp_path / "store"), str(tmp_path / "other")
    assert line(folder, None).endswith("): as asked for.")
    assert line(folder, "10kB").endswith("): as asked for.")
    assert line(other, "10kB").endswith("exceed its 10 kB: what does not fit is computed anew.")


@pytest.mark.parametrize("file", ["w0000.s0000.data", *slow("w0000.index")])
@pytest.mark.parametrize("store", [*slow("auto"), "disk"])
def test_a_damaged_store_is_computed_anew_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, store: str
) -> None:
    def train(where: str) -> None:
        args = tokens.arguments(tmp_path, freeze=tokens.LOWER, store=where, store_dir=str(tmp_path / "store"))
        fl.Trainer(tokens.model(), args, tokens.padding(), ROWS).train()
        gc.collect()  # the store is closed with its Trainer

    train("disk")
    (own,) = (tmp_path / "store").iterdir()
    content = (own / file).read_bytes()
    (own / file).write_bytes(b"\xff" + content[1:])
    caplog.clear()
    train(store)
    assert sum("has lost" in message for message in caplog.messages) == 1
    assert verify(own).faults == ()
    if store == "disk":
        assert describe(own).complete
        caplog.clear()
        train(store)
        assert not any("has lost" in message for message in caplog.messages)


def test_a_store_on_disk_that_gives_out_something_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The guard notices it, what lies there is not read again, and the report says so."""
    own = Store.get

    def wrong(store: Store, digests: Sequence[bytes]) -> dict[str, Packed]:
        return {name: Packed(value.values * 1.01, value.lengths) for name, value in own(store, digests).items()}

    monkeypatch.setattr(Store, "get", wrong)
    rows = Dataset.from_list(tokens.rows(80))
    args = tokens.arguments(tmp_path, freeze=tokens.LOWER, store="disk", store_dir=str(tmp_path / "store"))
    trainer = fl.Trainer(tokens.model(), args, tokens.padding(), rows)
    trainer.train()
    assert trainer.engine_report is not None
    assert trainer.engine_report.guard["failures"]
    assert any("no more is stored" in message for message in caplog.messages)
    assert str(trainer.engine_report).endswith("computed anew each time: what was stored was found to be wrong.")
    assert trainer.engine_report.rows == 0
