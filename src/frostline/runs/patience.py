"""Early stopping that outlives an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

from frostline.base.json import read_json


class Patience(EarlyStoppingCallback):
    """``EarlyStoppingCallback`` that reads from the log of a resumed run how long it has been waiting."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the evaluations since the best one."""
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        self.early_stopping_patience_counter = _waited(state.log_history, state.best_global_step)


def ran_out(checkpoint: Path, patience: int) -> float | None:
    """Tell whether the run that left a checkpoint was about to stop early.

    Args:
        checkpoint: The checkpoint's folder.
        patience: Evaluations without a better result after which training stops.

    Returns:
        The epoch that was its last; None if it was to go on.
    """
    state = read_json(checkpoint / "trainer_state.json")
    waited = _waited(state["log_history"], state["best_global_step"])
    return float(state["epoch"]) if waited >= patience else None


def _waited(history: Iterable[Mapping[str, Any]], best_step: int | None) -> int:
    return sum("eval_loss" in entry and entry["step"] > (best_step or 0) for entry in history)
