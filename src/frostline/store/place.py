"""Where stores are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from frostline.store.folder import FOLDER_DIGITS
from frostline.store.spec import StoreKey, StreamSpec
from frostline.store.store import Store


@dataclass(frozen=True)
class StorePlace:
    """Where stores are kept, and how much they may take.

    Attributes:
        folder: The folder of stores; None for memory.
        budget: The most bytes that a store may take.
        dtype: The dtype that floats are stored in; None for their own.
        writer: The number under which this process writes on disk.
        about: What the stores are for, for `frostline store list`: ``model``.
    """

    folder: Path | None
    budget: int
    dtype: torch.dtype | None = None
    writer: int = 0
    about: Mapping[str, str] = field(default_factory=dict)

    def holds(self, key: StoreKey) -> bool:
        """Whether a store of this key lies there on disk."""
        return self.folder is not None and (self.folder / key.digest()[:FOLDER_DIGITS]).is_dir()

    def open(self, key: StoreKey, streams: Sequence[StreamSpec]) -> Store:
        """Open the store of a key, or begin it.

        Raises:
            OutputError: If there is no store yet and none can be made.
            StoreError: If its header is damaged or another one's, and another process writes to it.
        """
        if self.folder is None:
            return Store.in_memory(key, streams, dtype=self.dtype)
        return Store.on_disk(self.folder, key, streams, dtype=self.dtype, writer=self.writer, about=self.about)
