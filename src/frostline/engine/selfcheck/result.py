"""What was found out about the fast paths of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from frostline.engine.fast_paths import FastPaths

STORE_DTYPE = "store dtype"


@dataclass(frozen=True, slots=True)
class PathCheck:
    """What was found out about one fast path.

    Attributes:
        path: ``"padding-free"``, ``"matrix products"``, ``"embedding gradients"``, ``"logits"``,
            ``"replay"``, ``"one position"``, ``"store dtype"``; ``"all"`` where none was tried.
        admitted: Whether it is taken.
        how: In words, what it does for this model; or why it is not taken.
        outputs: Largest difference from the plain path's of all tensors that the forward gives out, the loss included,
            relative to the larger of 1 and their size; None where it was not run.
        gradients: The same of the gradients of all parameters that train, relative to their size.
    """

    path: str
    admitted: bool
    how: str
    outputs: float | None = None
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
        per_token: Names of outputs with one value per token.
        dtype: What values are rounded to.
        paddings: What stands at padded positions of the inputs that have one value per token.
        changes: What the plain forward changes of what modules hold.
        draws: Whether its outputs depend on random numbers besides dropout.
    """

    checks: tuple[PathCheck, ...]
    boundary: str | None
    seconds: float
    paths: FastPaths
    per_token: frozenset[str]
    dtype: torch.dtype
    paddings: Mapping[str, Any] = field(default_factory=dict)
    changes: frozenset[str] = frozenset()
    draws: bool = False

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
    if check.outputs is None:
        return ""
    gradients = "" if check.gradients is None else f", of gradients {check.gradients:.1e}"
    return f" (largest difference of outputs {check.outputs:.1e}{gradients})"
