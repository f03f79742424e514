"""How far a schedule had come, in a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.base.json import json_digest, read_json
from frostline.errors import PlanError
from frostline.evidence.proof.fingerprint import Fingerprint
from frostline.evidence.proof.phase_proof import PhaseProof
from frostline.plan.schedule import Schedule
from frostline.training.schedule_progress import Progress

PHASES_FILE = "schedule.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedPhases:
    """How far a schedule had come when a checkpoint was written.

    Attributes:
        progress: Where the next step is.
        applied: The place, from 0, of the phase that the last step was in.
        trains: Names of the parameters that trained in it.
        from_step: Optimizer steps that were taken when that phase began.
        before: The fingerprint of then; None where it is not known.
        proofs: Those of the phases before it.
    """

    progress: Progress
    applied: int
    trains: frozenset[str]
    from_step: int
    before: Fingerprint | None
    proofs: tuple[PhaseProof, ...]

    def to_dict(self, schedule: Schedule) -> dict[str, Any]:
        """The state as plain values, with the digest of the schedule that it belongs to."""
        return {
            "version": _VERSION,
            "schedule": json_digest(schedule.to_dict()),
            "progress": self.progress.to_dict(),
            "applied": self.applied,
            "trains": sorted(self.trains),
            "from_step": self.from_step,
            "before": None if self.before is None else self.before.to_dict(),
            "proofs": [proof.to_dict() for proof in self.proofs],
        }

    @classmethod
    def read(cls, checkpoint: Path, schedule: Schedule) -> SavedPhases:
        """Read it from a checkpoint.

        Raises:
            PlanError: If the checkpoint has none, or one of another schedule.
        """
        file = checkpoint / PHASES_FILE
        try:
            values = read_json(file)
        except FileNotFoundError:
            raise PlanError(
                f"'{checkpoint}' holds no {PHASES_FILE}, so how far its schedule had come is not known.\n"
                "Go on from a checkpoint of a run with this schedule, or start anew."
            ) from None
        except (OSError, ValueError) as error:
            raise PlanError(f"'{file}' is not as a run writes it ({error}).") from None
        return cls.from_dict(values, schedule, str(file))

    @classmethod
    def from_dict(cls, values: Any, schedule: Schedule, source: str) -> SavedPhases:
        """Build it from what `to_dict` gives.

        Args:
            values: The values.
            schedule: The schedule that they should belong to.
            source: Where they are from, for messages.

        Raises:
            PlanError: If they are anything else, or of another schedule.
        """
        try:
            version, before = values["version"], values["before"]
            saved = cls(
                Progress(**values["progress"]),
                int(values["applied"]),
                frozenset(map(str, values["trains"])),
                int(values["from_step"]),
                None if before is None else Fingerprint.from_dict(before),
                tuple(PhaseProof.from_dict(one) for one in values["proofs"]),
            )
            digest = values["schedule"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"'{source}' is not as a run writes it ({type(error).__name__}: {error}).") from None
        if version != _VERSION:
            raise PlanError(f"'{source}' has version {version!r}; this Frostline reads {_VERSION}.")
        if digest != json_digest(schedule.to_dict()) or not 0 <= saved.applied < len(schedule.phases):
            raise PlanError(
                f"'{source}' was written under another schedule than this one.\n"
                "Go on with the same phases, or start anew."
            )
        return saved


def epochs_if_over(checkpoint: Path, schedule: Schedule) -> int | None:
    """Tell whether the last phase of a schedule was over when a checkpoint was written.

    Args:
        checkpoint: The checkpoint's folder.
        schedule: The schedule.

    Returns:
        Whole epochs that were trained by then, with which as its number of epochs a Trainer takes no step more; None if
        the run was to go on.

    Raises:
        PlanError: As `SavedPhases.read`.
    """
    if SavedPhases.read(checkpoint, schedule).progress.phase < len(schedule.phases):
        return None
    return math.floor(float(read_json(checkpoint / "trainer_state.json")["epoch"]))
