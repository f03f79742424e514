"""Training as seen on the terminal: a bar with the loss, and a line per evaluation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from frostline.base.escaping import printable_lines
from frostline.cli.render import metrics_line, print_text
from frostline.runs.metrics import evaluated

if TYPE_CHECKING:
    from rich.progress import TaskID
    from transformers import TrainerControl, TrainerState, TrainingArguments


class TrainingProgress(TrainerCallback):
    """A progress bar on a terminal, nothing of it in a pipe; a line per epoch in both.

    Args:
        quiet: Whether the lines are left out as well.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._loss: float | None = None
        self._ended = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("epoch 1", total=state.max_steps, completed=state.global_step, loss="-")
        self._bar.start()

    def on_fill(self, done: int, total: int) -> None:
        """Show how many rows of the frozen part are computed."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total, completed=done, description="storing the frozen part")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            epoch = f"epoch {int((state.epoch or 0) - 1e-9) + 1}"
            self._bar.update(self._task, total=state.max_steps, completed=state.global_step, description=epoch)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the loss."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            self._loss = float(logs["loss"])
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, loss=f"{self._loss:.4f}")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say how good the model is after this epoch; an evaluation after training is told elsewhere."""
        if self._ended or self._quiet:
            return
        trained = f"training loss {self._loss:.4f}; " if self._loss is not None else ""
        self._say(
            f"epoch {state.epoch or 0:.4g}: {trained}evaluation: {metrics_line(evaluated(kwargs.get('metrics') or {}))}"
        )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar away."""
        self._ended = True
        self.stop()

    def stop(self) -> None:
        """Take the bar away, also when training was broken off."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, line: str) -> None:
        if self._bar is not None and sys.stdout.isatty():
            self._bar.console.print(printable_lines(line), highlight=False, markup=False)
        else:
            print_text(line)
