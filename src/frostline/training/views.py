"""Fixed views of training rows that are others each time they are read: each of them comes again after some epochs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import TrainerCallback

from frostline.base.logging import get_logger
from frostline.base.random_state import RngState, seed_all
from frostline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sized

    from torch import Tensor

_SEED_BYTES = 4  # numpy takes no more


class FixedViews(Dataset[Any]):
    """A data set of which each row is read as one of a few fixed views of it, in turn by epoch.

    While a row is read, the generators of torch, Python and NumPy stand where seed, row and view put them; afterwards
    they stand where they stood. So a view is the same in whatever order, batch or process it is read.

    Args:
        dataset: Gives a row for its number.
        count: How many views a row has.
        seed: Another one gives other views.

    Raises:
        SettingsError: If the data set is a stream, or `count` is no whole number from 1 on.
    """

    def __init__(self, dataset: Any, count: int, seed: int) -> None:
        if not isinstance(count, int) or count < 1:
            raise SettingsError(
                f"store_views={count!r} is no number of views.\nGive a whole number from 1 on, or none."
            )
        rows = None if isinstance(dataset, IterableDataset) else getattr(dataset, "__len__", None)
        if rows is None or not hasattr(dataset, "__getitem__"):
            raise SettingsError(
                f"store_views={count} reads training rows by their numbers, and {type(dataset).__name__} is a stream.\n"
                "Leave store_views out, or give a data set with __len__ and __getitem__."
            )
        self._dataset: Any = dataset
        self._seed = seed
        self.count = count
        # Workers that outlive an epoch read it, too.
        self._epoch: Tensor = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Have rows read from now on as in an epoch, counted from 0."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        rows: Sized = self._dataset
        return len(rows)

    def __getitem__(self, index: Any) -> Any:
        view = int(self._epoch) % self.count
        name = f"{self._seed}:{int(index)}:{view}".encode()
        rng = RngState()
        seed_all(int.from_bytes(hashlib.blake2b(name, digest_size=_SEED_BYTES).digest(), "little"))
        try:
            return self._dataset[index]
        finally:
            rng.restore()


class ViewsCallback(TrainerCallback):
    """Gives a Trainer's training rows a few fixed views, of which each epoch reads the next one.

    Args:
        count: How many; None to leave the rows as they are.
        seed: For the views.
    """

    def __init__(self, count: int | None, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._rows: FixedViews | None = None

    def of(self, dataset: Any) -> Any:
        """A training data set as the Trainer is to read it.

        Raises:
            SettingsError: If it cannot be read so.
        """
        if self._count is None or dataset is None:
            return dataset
        self._rows = FixedViews(dataset, self._count, self._seed)
        return self._rows

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say that it changes what is trained on."""
        if self._count is None or not state.is_world_process_zero:
            return
        if not isinstance(getattr(kwargs["train_dataloader"], "dataset", None), FixedViews):
            get_logger().warning("Views: store_views has no effect, as get_train_dataloader is overridden.")
            return
        what = (
            f"each row is one of {self._count} fixed views of it" if self._count > 1 else "each row is one fixed view"
        )
        get_logger().info("Views: %s, in turn by epoch; training sees no others, unlike without store_views.", what)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Turn to the views of an epoch."""
        if self._rows is not None:
            self._rows.set_epoch(int(state.epoch or 0))
