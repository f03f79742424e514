"""Ctrl-C, or a connection that is lost, in the middle of training: a checkpoint is written before it ends."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from frostline.base.logging import get_logger

# Where there is a signal for a terminal that is gone, it is heeded too.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_OUTPUTS = (1, 2)  # descriptors


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
        """Take over the signals that end a process for a block; in the main thread, and where they are heeded."""
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
        _close_lost_terminals()
        again = " Press Ctrl-C again to stop at once." if number == signal.SIGINT else ""
        get_logger().warning(f"Stopping: a checkpoint is written after this step.{again}")

    def on_fill(self, _done: int, _total: int) -> None:
        """Stop while the store is filled: what was computed is kept on disk, and no step was taken."""
        if self.asked:
            get_logger().warning(
                "Stopped while the frozen part was stored: no new checkpoint; what is on disk is kept."
            )
            raise KeyboardInterrupt

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint; after the last step of an epoch there is one anyway, behind the evaluation."""
        run_ends = state.global_step >= state.max_steps or control.should_training_stop
        if self.asked and not run_ends and not float(state.epoch or 0).is_integer():
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


def _close_lost_terminals() -> None:
    """Have nothing written to a terminal that is gone any more: it would fail, and the run with it."""
    for number in _OUTPUTS:
        try:
            lost = stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number)
        except OSError:  # closed
            continue
        if lost:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, number)
            os.close(nothing)
