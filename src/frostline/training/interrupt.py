"""Ctrl-C in the middle of training: the step is finished and a checkpoint written before it ends."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from frostline.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from transformers import TrainerControl, TrainerState, TrainingArguments

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnInterrupt(TrainerCallback):
    """Saves a checkpoint at the end of the step in which the process was asked to stop, then stops.

    For a Trainer that saves a checkpoint at the end of every epoch.

    Raises:
        KeyboardInterrupt: Once the checkpoint is written; at once when asked a second time.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over Ctrl-C and the termination signal for a block; in the main thread, and where they are heeded."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.asked:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        get_logger().warning("Stopping: a checkpoint is written after this step. Press Ctrl-C again to stop at once.")

    def on_fill(self, _done: int, _total: int) -> None:
        """Stop while the store is filled: what was computed is kept on disk, and no step was taken."""
        if self.asked:
            get_logger().warning(
                "Stopped while the frozen part was stored: no new checkpoint; what is on disk is kept."
            )
            raise KeyboardInterrupt

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint; after the last step of an epoch there is one anyway, behind the evaluation."""
        epoch_ends = state.global_step >= state.max_steps or float(state.epoch or 0).is_integer()
        if self.asked and not epoch_ends:
            control.should_log = control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have the loss since the last log noted before the checkpoint is written, so that it is not forgotten."""
        control.should_log = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop, now that the checkpoint is written."""
        if self.asked:
            raise KeyboardInterrupt
