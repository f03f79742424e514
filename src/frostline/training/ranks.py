"""The processes of one training run, deciding together."""

from __future__ import annotations

import os
from typing import TypeVar

from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import broadcast_object_list, gather_object  # type: ignore[import-untyped]

T = TypeVar("T")


class Ranks:
    """The processes that train one model, as one of them sees them.

    Every method is to be called by all of them at the same point of the run.

    Args:
        accelerator: Of the Trainer.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.count = accelerator.num_processes
        self.is_first = accelerator.is_main_process
        self.on_host = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        self.place_on_host = accelerator.local_process_index

    def from_first(self, value: T) -> T:
        """The first process's value."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def agree(self, value: object) -> bool:
        """Whether all have the same value."""
        return self.count == 1 or len(set(gather_object([value]))) == 1

    def wait(self) -> None:
        """Go on when all have come here."""
        self._accelerator.wait_for_everyone()
