"""The engine within the Trainer: every step on the fast paths, the store filled before the first."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import psutil
import torch
from transformers import TrainerCallback

from frostline.engine.choice import Choice, Work, choose
from frostline.engine.engine import Engine
from frostline.engine.store.folder import default_folder
from frostline.engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import nn
    from torch.utils.data import DataLoader

    from frostline.engine.admission import SelfCheck
    from frostline.engine.settings import EngineSettings
    from frostline.engine.store.spec import StoreKey, StreamSpec

# Tokens of one batch of the filling pass: large enough for the matrix products, small enough for the caches.
_FILL_TOKENS = 2048


class FastPaths(TrainerCallback):
    """The engine of one Trainer."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self._model: nn.Module | None = None
        self._work: Work | None = None
        self.choice: Choice | None = None

    @property
    def engine(self) -> Engine | None:
        return self._engine

    def active(self, model: nn.Module) -> AbstractContextManager[None]:
        """Answer the model's calls from here on."""
        if self._engine is None or self._model is not model:
            self._engine, self._model = Engine(model, self._settings, self._make_store), model
        return self._engine.active()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Fill the store."""
        self.prepare(kwargs["model"], kwargs["train_dataloader"], state.num_train_epochs, nullcontext)

    def prepare(self, model: nn.Module, loader: DataLoader[Any], passes: float, autocast: Callable[[], Any]) -> None:
        """Fill the store for the texts of a data loader, before they are trained on `passes` times."""
        dataset, collate = loader.dataset, loader.collate_fn
        try:
            lengths = _lengths(dataset)
        except (TypeError, KeyError, AttributeError, NotImplementedError):
            return  # rows are computed as they come
        if not lengths or passes <= 1:
            self._work = Work(len(lengths), sum(lengths), passes, 0)
            return
        self._work = Work(len(lengths), sum(lengths), passes, 0)
        with self.active(model), autocast(), torch.no_grad():
            engine = self._engine
            assert engine is not None
            device = next(model.parameters()).device
            for rows in _batches(lengths):
                batch = collate([dataset[row] for row in rows])
                inputs = {
                    name: value.to(device) if isinstance(value, torch.Tensor) else value
                    for name, value in batch.items()
                }
                engine.fill(inputs)
                if engine.store is None:
                    break

    def _make_store(
        self, check: SelfCheck, key: Callable[[], StoreKey], streams: list[StreamSpec]
    ) -> tuple[Store, int] | None:
        work = self._work
        if work is None:
            return None
        memory, disk = psutil.virtual_memory().available, shutil.disk_usage("/").free
        self.choice = choose(self._settings, work, memory, disk)
        if self.choice.where == "nowhere":
            return None
        if self.choice.where == "memory":
            return Store.in_memory(key(), streams, dtype=self._settings.torch_dtype), self._settings.budget(memory)
        folder = self._settings.store_dir or default_folder()
        return Store.on_disk(folder, key(), streams, dtype=self._settings.torch_dtype), self._settings.budget(disk)


def _lengths(dataset: Any) -> list[int]:
    return [len(row) for row in dataset["input_ids"]]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows sorted by length, cut into batches of about equally many tokens."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches: list[list[int]] = [[]]
    for row in order:
        if batches[-1] and lengths[row] * (len(batches[-1]) + 1) > _FILL_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches
