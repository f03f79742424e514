"""Rows of other tasks than text classification: the same model and data given to both Trainers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import frostline as fl
from benchmarks.models import SEED

if TYPE_CHECKING:
    from benchmarks.job import Job

SHARED = Path(__file__).parents[2] / "shared" / "data"
_LAST = 10  # steps whose mean loss is told beside the time


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, and on what.

    Attributes:
        model: Freshly made or read.
        freeze: What is frozen, as a selector.
        rows: The training rows.
        collate: Makes a batch of them; None for the Trainer's own way.
        source: What the rows are, in words.
        tokens: Tokens, or whatever else a row is long in, of all rows, without padding.
    """

    model: Any
    freeze: str
    rows: Sequence[dict[str, Any]]
    collate: Any
    source: str
    tokens: int


# How many rows at most, and whether this is the warm-up, which has a small model.
Make = Callable[[int, bool], Task]
Loss = float
# Imports what it needs and makes the model, untimed; what it returns is the timed region, and gives the final loss.
TaskContestant = Callable[["Job", Task, Path], Callable[[], Loss]]


def frostline(job: Job, task: Task, folder: Path) -> Callable[[], Loss]:
    """``fl.Trainer`` with its defaults."""
    return _training(fl, job, task, folder, {"freeze": task.freeze})


def transformers_trainer(job: Job, task: Task, folder: Path) -> Callable[[], Loss]:
    """``transformers.Trainer``, the same parameters frozen, their modules in train mode."""
    import transformers

    for name in fl.select(task.model, task.freeze).names:
        task.model.get_parameter(name).requires_grad_(requires_grad=False)
    return _training(transformers, job, task, folder, {})


def _training(library: Any, job: Job, task: Task, folder: Path, plan: dict[str, Any]) -> Callable[[], Loss]:
    def work() -> Loss:
        arguments = library.TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=job.epochs,
            per_device_train_batch_size=job.batch,
            learning_rate=job.learning_rate,
            logging_steps=1,
            seed=SEED,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = library.Trainer(task.model, arguments, train_dataset=task.rows, data_collator=task.collate, **plan)
        trainer.train()
        losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry][-_LAST:]
        return sum(losses) / len(losses)

    return work
