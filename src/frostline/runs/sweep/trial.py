"""One training run of a sweep, and what came of it: plain values, so that it may run anywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from frostline.base.json import json_digest


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run.

    Attributes:
        freeze: What is frozen, as a selector; ``""`` for nothing, and for a schedule.
        learning_rate: The peak rate; None for that which each phase of a schedule usually has.
        seed: Of the new weights and the order of rows.
        part: ``"tuning"`` trains on one part of the training rows and is judged by the rest of them; ``"all"`` trains
            on all of them and is judged by the evaluation rows.
        share: Of the rows that it could train on, how many it does.
        preset: The name of the schedule; ``""`` for one plan throughout.
    """

    freeze: str
    learning_rate: float | None
    seed: int
    part: Literal["tuning", "all"]
    share: float = 1.0
    preset: str = ""

    @property
    def name(self) -> str:
        """A name for its file."""
        return json_digest(asdict(self))[:24]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        trial: The trial.
        metrics: As an evaluation gives them, the loss among them.
        seconds: Of training, without its evaluation.
        peak_bytes: The highest memory that it took on top of what was in use before: of the device on CUDA, else of
            the process; None where the system does not tell.
        trainable: How many parameters trained, in any phase.
        parameters: Of so many.
    """

    trial: Trial
    metrics: dict[str, float]
    seconds: float
    peak_bytes: int | None
    trainable: int
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> TrialResult:
        """Read what `to_dict` gave.

        Raises:
            KeyError, TypeError: If it is something else.
        """
        return cls(**{**values, "trial": Trial(**values["trial"])})
