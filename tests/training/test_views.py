"""Fixed views of rows that are augmented: the same whoever reads them, kept, and taken in turn."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTForImageClassification

import frostline as fl
from frostline.base.random_state import seed_all
from frostline.errors import SettingsError
from frostline.training.views import FixedViews
from frostline.training.workload import ahead_of
from tests.training import tokens
from tests.training.beside import losses, weights

if TYPE_CHECKING:
    from pathlib import Path

ROWS, LOWER = 16, "embeddings, layers[:2]"


class Augmented:
    """Images that are moved, mirrored and dimmed by chance, by each of the three generators."""

    def __init__(self, own: np.random.Generator | None = None) -> None:
        self.images = torch.randn(ROWS, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        self.own = own

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[index] + 0.1 * torch.randn(3, 16, 16)
        image = image * float(np.random.uniform(0.5, 1.5))  # noqa: NPY002 - as projects do
        if random.random() < 0.5:  # noqa: S311 - no secret
            image = image.flip(-1)
        if self.own is not None:
            image = image + float(self.own.normal())
        return {"pixel_values": image, "labels": index % 2}


def model() -> Any:
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **shape))


def images_of(batches: Any) -> dict[int, torch.Tensor]:
    """By label, which here is the row's number."""
    return {int(row["labels"]): row["pixel_values"] for batch in batches for row in batch}


class Numbered(Augmented):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"labels": index}


def draws() -> tuple[float, float, float]:
    """One number of each generator."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002, S311


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
def test_a_view_depends_on_its_row_alone(workers: dict[str, Any]) -> None:
    views = FixedViews(Numbered(), 2, seed=7)
    seed_all(3)
    expected = draws()
    seed_all(3)
    epochs = []
    for epoch in range(3):
        views.set_epoch(epoch)
        epochs.append([views[row]["pixel_values"] for row in range(ROWS)])
    assert draws() == expected
    assert all(torch.equal(one, other) for one, other in zip(epochs[0], epochs[2], strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(epochs[0], epochs[1], strict=True))

    loader = DataLoader(views, batch_size=3, shuffle=True, collate_fn=list, **workers)
    for epoch in (1, 2):
        views.set_epoch(epoch)
        found = images_of(loader)
        assert len(found) == ROWS
        assert all(torch.equal(found[row], epochs[epoch][row]) for row in range(ROWS))
    other = FixedViews(Numbered(), 2, seed=8)
    assert not torch.equal(other[0]["pixel_values"], epochs[0][0])


def trained(folder: Path, kind: type = fl.Trainer, data: Any = None, **changes: Any) -> Any:
    options: dict[str, Any] = {"num_train_epochs": 5, "per_device_train_batch_size": 4, **changes}
    if kind is fl.Trainer:
        options = {"store": "memory", "freeze": LOWER} | options
    arguments = fl.TrainingArguments if kind is fl.Trainer else transformers.TrainingArguments
    net = model()
    if kind is not fl.Trainer:
        fl.freeze(net, LOWER)
    trainer = kind(net, arguments(**tokens.options(folder, **options)), train_dataset=data or Augmented())
    trainer.train()
    return trainer


class Turns(transformers.TrainerCallback):
    """Turns the views of a data set that somebody made by hand."""

    def __init__(self, views: FixedViews) -> None:
        self.views = views

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.views.set_epoch(int(state.epoch))


def test_the_store_holds_each_view(tmp_path: Path, heard: pytest.LogCaptureFixture) -> None:
    ours = trained(tmp_path / "ours", store_views=2, data_seed=11)
    assert "each row is one of 2 fixed views of it, in turn by epoch; training sees no others" in heard.text
    assert "switched off" not in heard.text
    assert ours.engine_report.rows == 2 * ROWS

    views = FixedViews(Augmented(), 2, seed=11)
    net = model()
    fl.freeze(net, LOWER)
    options = tokens.options(tmp_path / "theirs", num_train_epochs=5, per_device_train_batch_size=4, data_seed=11)
    theirs = transformers.Trainer(
        net, transformers.TrainingArguments(**options), train_dataset=views, callbacks=[Turns(views)]
    )
    theirs.train()
    assert losses(ours) == pytest.approx(losses(theirs), abs=1e-5)
    own, other = weights(ours), weights(theirs)
    assert all(torch.allclose(own[name], other[name], atol=1e-5, rtol=0) for name in own)
    assert isinstance(ours.train_dataset, Augmented)


def test_without_it_rows_are_as_they_were(tmp_path: Path) -> None:
    ours = trained(tmp_path / "ours")
    assert losses(ours) == pytest.approx(losses(trained(tmp_path / "theirs", transformers.Trainer)), abs=1e-5)
    assert ours.engine_report.choice.where == "nowhere"


def test_a_transform_of_a_data_set(tmp_path: Path) -> None:
    """Rows of ``datasets`` are read one by one, though a transform is given a batch."""
    table = Dataset.from_dict({"image": list(range(ROWS)), "labels": [row % 2 for row in range(ROWS)]})

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": [torch.randn(3, 16, 16) for _ in batch["image"]], "labels": batch["labels"]}

    table.set_transform(transform)
    ours = trained(tmp_path, data=table, store_views=1, remove_unused_columns=False, num_train_epochs=3)
    assert ours.engine_report.rows == ROWS
    assert ours.engine_report.guard["failures"] == []


def test_a_resumed_run_goes_on_with_the_same_views(tmp_path: Path) -> None:
    whole = trained(tmp_path, store_views=2, save_strategy="steps", save_steps=10)
    again = fl.Trainer(model(), whole.args, train_dataset=Augmented())
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert losses(again)[-10:] == pytest.approx(losses(whole)[-10:], abs=1e-6)


def test_views_that_are_none_are_told(tmp_path: Path, heard: pytest.LogCaptureFixture) -> None:
    trained(tmp_path, data=Augmented(np.random.default_rng(0)), store_views=2)
    # The guard asks for the rows of one batch once more.
    assert re.search(
        "16 of the (16|20) rows of the epoch before were never seen before despite store_views=2", heard.text
    )


def test_what_no_view_can_be_read_of(tmp_path: Path, heard: pytest.LogCaptureFixture) -> None:
    stream = Dataset.from_list([dict(row) for row in tokens.rows()]).to_iterable_dataset()
    with pytest.raises(SettingsError, match="store_views=2 reads training rows by their numbers, and IterableDataset"):
        trained(tmp_path, data=stream, store_views=2, max_steps=2)
    with pytest.raises(SettingsError, match="store_views=0 is no number of views"):
        trained(tmp_path, store_views=0)

    class OwnLoader(fl.Trainer):
        def get_train_dataloader(self) -> Any:
            return self.accelerator.prepare(DataLoader(self.train_dataset, 4, collate_fn=self.data_collator))  # type: ignore[arg-type]

    trainer = OwnLoader(model(), tokens.arguments(tmp_path, store_views=2, max_steps=1), train_dataset=Augmented())
    trainer.train()
    assert "Views: store_views has no effect, as get_train_dataloader is overridden." in heard.text


@pytest.mark.parametrize(("count", "rows", "passes"), [(2, 80, 2), (3, 120, 4 / 3), (9, 160, 1)])
def test_what_is_ahead(count: int, rows: int, passes: float) -> None:
    from types import SimpleNamespace

    from transformers.trainer_utils import IntervalStrategy

    args = SimpleNamespace(gradient_accumulation_steps=1, eval_strategy=IntervalStrategy("no"))
    state = SimpleNamespace(max_steps=20, num_train_epochs=4, eval_steps=5)
    made = tokens.rows(40)
    loader = DataLoader(FixedViews(made, count, 0), batch_size=8, collate_fn=tokens.padding())
    ahead = ahead_of(args, state, 0, 20, loader, None, tokens.collate(made[:8]), 1)
    assert ahead.work.rows == rows
    assert ahead.work.passes == pytest.approx(passes)
    assert ahead.lengths is None
