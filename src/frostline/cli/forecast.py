"""How long a training run is going to take, told once its first steps have shown it."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from frostline.cli.render import print_text
from frostline.runs.estimate_result import duration_text

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

_STEPS = 8  # after so many it is told; the first, in which checks run and the store is filled, is no measure
_SHORT = 10.0  # seconds; a run that is over by then needs no forecast


class Forecast(TrainerCallback):
    """Says how long the whole run will take, by what its start and its first steps took."""

    def __init__(self) -> None:
        self._began = 0.0
        self._ends: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the clock; after some steps, say what is ahead."""
        if len(self._ends) >= _STEPS:
            return
        self._ends.append(time.perf_counter())
        if len(self._ends) < _STEPS:
            return
        step = median(later - earlier for earlier, later in zip(self._ends, self._ends[1:], strict=False))
        left = (state.max_steps - state.global_step) * step
        if left > _SHORT:
            so_far = self._ends[-1] - self._began
            print_text(
                f"Estimate: {duration_text(so_far + left)} of training in all, without evaluations "
                f"({duration_text(step)} a step, measured over {_STEPS - 1}; {duration_text(so_far)} so far)."
            )
