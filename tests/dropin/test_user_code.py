"""Code of the user's is called exactly as often as transformers.Trainer calls it, and draws the same."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, WeightedRandomSampler

from tests.dropin import rows
from tests.dropin.pairs import assert_profits, assert_same_predictions, compared
from tests.dropin.trunks import Classifier
from tests.training import tokens
from tests.training.beside import assert_alike, both

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import frostline as fl


class Collator:
    """It notes which rows came in each of its calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, batch: list[rows.Row]) -> dict[str, Any]:
        self.calls.append([len(row["input_ids"]) for row in batch])
        return self.changed(rows.padded(batch))

    def changed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs


class Masking(Collator):
    """Tokens are masked by a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(7)

    def changed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        drawn = torch.rand(inputs["input_ids"].shape, generator=self.generator)
        inputs["input_ids"] = inputs["input_ids"].masked_fill((drawn < 0.2) & (inputs["input_ids"] > 2), 4)
        return inputs


class MaskingByTorch(Masking):
    """By torch's own draws."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.default_generator


class Swapping(Collator):
    """Two tokens of each text change places, by a generator of its own, of Python's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = random.Random(3)  # noqa: S311 - no secret

    def changed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            one, other = (self.draw.randrange(int(mask.sum())) for _ in range(2))
            ids[one], ids[other] = ids[other].clone(), ids[one].clone()
        return inputs


class Alternating(Collator):
    """Every second batch has its tokens moved by one."""

    def changed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if len(self.calls) % 2:
            inputs["input_ids"] = inputs["input_ids"].roll(1, dims=1).where(inputs["attention_mask"] == 1, 0)
        return inputs


class Curriculum(Collator):
    """Texts are cut, less and less so."""

    def changed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        width = 6 + 2 * len(self.calls)
        return {name: value[:, :width] if value.dim() > 1 else value for name, value in inputs.items()}


COLLATORS = (Collator, Masking, MaskingByTorch, Swapping, Alternating, Curriculum)


@pytest.mark.parametrize("kind", COLLATORS)
def test_a_collator(tmp_path: Path, kind: type[Collator]) -> None:
    ours, theirs = both(tmp_path, None, None, lambda: {"data_collator": kind()}, make=Classifier, eval_strategy="epoch")
    assert_alike(ours, theirs)
    assert_same_predictions(ours, theirs)
    collators: list[Any] = [ours.data_collator, theirs.data_collator]
    assert collators[0].calls == collators[1].calls
    assert len(collators[0].calls) == 10 + 4 + 2
    if kind is Collator:
        assert_profits(ours)


def test_a_collator_of_rows_in_a_list(tmp_path: Path) -> None:
    def given() -> dict[str, Any]:
        return {"data_collator": Masking(), "train_dataset": tokens.rows(), "eval_dataset": tokens.rows(12, seed=1)}

    ours, theirs = both(tmp_path, None, None, given, make=Classifier)
    assert_alike(ours, theirs)
    collators: list[Any] = [ours.data_collator, theirs.data_collator]
    assert collators[0].calls == collators[1].calls


class Own(TorchDataset[Any]):
    """A data set that draws as its rows are asked for, and notes which were."""

    def __init__(self, count: int = 40) -> None:
        self.rows = tokens.rows(count)
        self.generator = torch.Generator().manual_seed(11)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        row: dict[str, Any] = dict(self.rows[index])
        ids = torch.tensor(row["input_ids"])
        drawn = torch.rand(ids.shape, generator=self.generator)
        return row | {"input_ids": ids.masked_fill((drawn < 0.2) & (ids > 2), 4).tolist()}


class OwnInBatches(Own):
    """It is asked for whole batches."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class InAList(list[Any]):
    """A list that notes which of its rows were asked for."""

    def __init__(self) -> None:
        super().__init__(tokens.rows())
        self.asked: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("kind", [Own, OwnInBatches, InAList])
def test_a_data_set(tmp_path: Path, kind: type[Any]) -> None:
    ours, theirs = both(tmp_path, None, None, lambda: {"train_dataset": kind()}, make=Classifier)
    assert_alike(ours, theirs)
    assert_same_predictions(ours, theirs)
    sets: list[Any] = [ours.train_dataset, theirs.train_dataset]
    assert sets[0].asked == sets[1].asked
    assert len(sets[0].asked) == 80


def test_a_transform_that_draws(tmp_path: Path) -> None:
    """Rows of ``datasets`` are made as they are asked for, by a generator of their own."""

    def given() -> dict[str, Any]:
        draw = torch.Generator().manual_seed(2)
        calls = []

        def transformed(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            calls.append(len(batch["labels"]))
            cut = [int(torch.randint(3, 25, (), generator=draw)) for _ in batch["labels"]]
            return {
                name: [
                    value[:end] if isinstance(value, list) else value for value, end in zip(values, cut, strict=True)
                ]
                for name, values in batch.items()
            }

        data = Dataset.from_list(tokens.rows()).with_transform(transformed)
        return {"train_dataset": data, "data_collator": rows.padded}

    compared(tmp_path, Classifier, None, given, remove_unused_columns=False)


class Stream(IterableDataset[Any]):
    """Rows that come one after the other, changed by a generator of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(4)
        self.given = 0

    def __iter__(self) -> Iterator[Any]:
        for row in tokens.rows():
            self.given += 1
            ids = torch.tensor(row["input_ids"])
            drawn = torch.rand(ids.shape, generator=self.generator)
            yield row | {"input_ids": ids.masked_fill((drawn < 0.2) & (ids > 2), 4).tolist()}


def test_a_stream_that_draws(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, None, None, lambda: {"train_dataset": Stream()}, make=Classifier, max_steps=10)
    assert_alike(ours, theirs)
    streams: list[Any] = [ours.train_dataset, theirs.train_dataset]
    assert streams[0].given == streams[1].given


class Weighty:
    """Draws rows by weight, some of them often."""

    def _get_train_sampler(self, *_: Any) -> WeightedRandomSampler:
        weights = [1.0 + row % 5 for row in range(40)]
        return WeightedRandomSampler(weights, 40, generator=torch.Generator().manual_seed(3))


def test_a_sampler(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, Weighty, None, lambda: {"data_collator": Collator()}, make=Classifier)
    assert_alike(ours, theirs)
    collators: list[Any] = [ours.data_collator, theirs.data_collator]
    assert collators[0].calls == collators[1].calls


def test_rows_that_never_come_again_are_not_kept_for_ever(tmp_path: Path) -> None:
    ours: fl.Trainer
    ours, theirs = both(tmp_path, None, None, lambda: {"data_collator": Masking()}, make=Classifier, num_train_epochs=6)
    assert_alike(ours, theirs)
    assert ours.engine_report is not None
    assert ours.engine_report.rows <= 120  # of 240 that came
