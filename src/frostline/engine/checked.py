"""What was found out about the fast paths of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frostline.engine.paths import Paths

STORE_DTYPE = "store dtype"


@dataclass(frozen=True, slots=True)
class PathCheck:
    """What was found out about one fast path.

    Attributes:
        path: ``"padding-free"``, ``"matrix products"``, ``"embedding gradients"``, ``"replay"``,
            ``"one position"``, ``"store dtype"``; ``"all"`` where none was tried.
        admitted: Whether it is taken.
        how: In words, what it does for this model; or why it is not taken.
        logits: Largest difference of the logits from the plain path's, relative to the largest of them; None where
            it was not run.
        gradients: The same of the gradients of all parameters that train.
    """

    path: str
    admitted: bool
    how: str
    logits: float | None = None
    gradients: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class SelfCheck:
    """Which fast paths are exact for a model, as measured.

    Attributes:
        checks: One per path.
        boundary: The unit that activations are stored for; None where nothing is replayed.
        seconds: What the check took.
        paths: What the engine runs.
    """

    checks: tuple[PathCheck, ...]
    boundary: str | None
    seconds: float
    paths: Paths

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "boundary": self.boundary,
            "seconds": self.seconds,
            "checks": [check.to_dict() for check in self.checks],
        }

    def __str__(self) -> str:
        return "\n".join(
            f"{check.path}: {'yes' if check.admitted else 'no'}, {check.how}{_differences(check)}"
            for check in self.checks
        )


def _differences(check: PathCheck) -> str:
    if check.logits is None:
        return ""
    gradients = "" if check.gradients is None else f", of gradients {check.gradients:.1e}"
    return f" (largest difference of logits {check.logits:.1e}{gradients})"
