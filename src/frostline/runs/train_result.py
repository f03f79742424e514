"""What a training run settles before its first step, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.base.json import picked
from frostline.data.tokenising import TokenStats
from frostline.evidence.inspect.inspection import Inspection
from frostline.evidence.proof.proof import Proof
from frostline.plan.schedule import Schedule
from frostline.runs.baseline import Baseline
from frostline.runs.defaults import TrainingLength
from frostline.runs.rows import RunRows
from frostline.runs.run_page import run_fragment, run_page
from frostline.runs.train_settings import TrainSettings
from frostline.training.engine_report import EngineReport


@dataclass(frozen=True, slots=True)
class TrainStart:
    """What is settled before the first step.

    Attributes:
        settings: What was asked for.
        read: The rows, and what their labels are.
        rows: Training rows.
        eval_rows: Evaluation rows; None where there are none.
        tokens: What tokenising the training rows gave.
        inspection: What is frozen, and where it came from.
        length: Epochs and peak rate, as they were given or chosen.
        resumed: The checkpoint that the run goes on from; None for a run from the start.
        adapters: What adapters were put where, in words; ``""`` for none.
        schedule: What trains phase by phase, each phase with its rate; None for one plan throughout.
    """

    settings: TrainSettings
    read: RunRows
    rows: int
    eval_rows: int | None
    tokens: TokenStats
    inspection: Inspection
    length: TrainingLength
    resumed: Path | None
    adapters: str = ""
    schedule: Schedule | None = None

    @property
    def rate_in_words(self) -> str:
        """The peak learning rate; under a schedule it is said there."""
        return "by phase" if self.schedule is not None else f"{self.length.learning_rate:g}"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run left.

    Attributes:
        folder: The finished folder.
        start: What was settled before the first step.
        proof: Whether the frozen part stayed.
        metrics: Evaluation of the model that was kept; empty without evaluation rows.
        baseline: What one answer for all evaluation rows reaches; None without evaluation rows.
        shortfall: Why it is said to have learned too little, and what to do next; ``""`` where it is not.
        train_loss: Mean loss over the run's steps.
        steps: Optimizer steps.
        seconds: Time of this process's training, evaluations and proof included.
        best_epoch: The epoch of the model that was kept; None without evaluation rows.
        engine: What the engine did, in the last phase where there are several; None where it was off.
        earlier_engine: What it did in earlier phases, with the step by which each ended.
        digest: One SHA-256 for all files of the folder, in hex digits; None until they are written.
    """

    folder: Path
    start: TrainStart
    proof: Proof
    metrics: dict[str, float]
    baseline: Baseline | None
    shortfall: str
    train_loss: float
    steps: int
    seconds: float
    best_epoch: float | None
    engine: EngineReport | None = None
    earlier_engine: tuple[tuple[int, EngineReport], ...] = ()
    digest: str | None = None

    def to_html(self, *, texts: bool = True) -> str:
        """The run as a page, from the files that it left.

        Args:
            texts: Whether the evaluation texts that it got most wrong are shown; no file of the run holds them.
        """
        test = self.start.read.test
        return run_page(self.folder, test.texts if texts and test is not None else None)

    def _repr_html_(self) -> str:
        """What a notebook shows: the proof's verdict and the tower, without a script."""
        return run_fragment(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, as ``metrics.json`` holds them."""
        start = self.start
        return {
            "eval": self.metrics,
            **picked(self, "baseline", "shortfall", "train_loss", "steps"),
            "seconds": round(self.seconds, 3),
            "best_epoch": self.best_epoch,
            **picked(start, "rows", "eval_rows"),
            **picked(start.length, "epochs", "learning_rate", "chosen", "warning"),
            **picked(start.inspection, "parameters", "trainable_parameters"),
            **({"schedule": start.schedule.to_dict()} if start.schedule is not None else {}),
            "problem_type": start.read.schema.problem_type,
            "labels": list(start.read.schema.names),
            "proof": str(self.proof),
            "engine": self.engine.to_dict() if self.engine is not None else None,
            **(
                {"earlier_engine": [{"to_step": step} | report.to_dict() for step, report in self.earlier_engine]}
                if self.earlier_engine
                else {}
            ),
            "settings": start.settings.to_dict(),
        }
