"""What the engine does in a training run, for people and for files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from frostline.base.json import picked
from frostline.engine.cost.choice import Choice
from frostline.engine.cost.costs import bytes_text
from frostline.engine.selfcheck.result import STORE_DTYPE, PathCheck, SelfCheck

_PLACES = {"memory": "in memory", "disk": "on disk", "nowhere": "of the frozen part computed anew each time"}


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What the engine of a Trainer does.

    Attributes:
        check: Which fast paths are exact for the model, as measured.
        choice: Where activations of the frozen part are kept, and why; None where none can be.
        is_random: Whether frozen layers follow train(), so that none can be kept.
        rows: Rows that the store holds.
        bytes: What they take.
        computed: Rows that were computed to fill the store before the first step that uses it; the others were there.
        seconds: What filling it took.
        guard: What came of repeating calls plainly now and then.
        reason: Why a call was last answered on the plain path; None if none was.
    """

    check: SelfCheck
    choice: Choice | None
    is_random: bool
    rows: int
    bytes: int
    computed: int
    seconds: float
    guard: Mapping[str, Any]
    reason: str | None

    def __str__(self) -> str:
        """One line."""
        paths = self.check.paths
        does = [f"replay from {self.check.boundary}"] if self._stores else []
        if paths.is_padding_free:
            does.append("padding-free")
        elif paths.trim:
            does.append("padding cut off as far as all rows of a batch have it")
        if paths.single is not None:
            does.append(f"last layer for the {paths.single} only")
        if paths.late_logits:
            does.append("logits where the loss counts them")
        if paths.products:
            does.append("matrix products by oneDNN")
        line = ", ".join(does) or "the plain path"
        return f"Engine: {line}; {self._stored()}."

    @property
    def _stores(self) -> bool:
        return self.choice is not None and self.choice.where != "nowhere"

    def _stored(self) -> str:
        if self.is_random:
            return "nothing is stored: frozen layers follow train(), dropout included"
        if self.choice is None:
            refused = [f"no {check.path}: {check.how}" for check in self.check.checks if not check.admitted]
            if self.reason is not None and not self.check.paths.any:
                return self.reason
            return "; ".join(refused) or "nothing is stored"
        size = f" ({bytes_text(self.bytes)})" if self._stores and self.bytes else ""
        return f"activations {_PLACES[self.choice.where]}{size}{self._rounded()}: {self.choice.why}"

    def _rounded(self) -> str:
        """What storing them in another dtype does to the results."""
        check = next((check for check in self.check.checks if check.path == STORE_DTYPE), None)
        if check is None or check.outputs is None or not self._stores:
            return ""
        return f", {check.how.rpartition(' ')[2]}, which changes outputs by up to {check.outputs:.1e}"

    def explain(self) -> str:
        """The self-check and the reckoning behind the choice, as lines of plain text."""
        filled = f"Filled: {self.computed:,} rows computed in {self.seconds:.1f} s" if self.computed else ""
        parts = [str(self), str(self._taken()), self.choice.explain() if self.choice is not None else "", filled]
        return "\n".join(part for part in parts if part)

    def _taken(self) -> SelfCheck:
        """The self-check, without what was found exact for a store and is not taken, because there is none."""
        if self._stores:
            return self.check
        why = f"nothing is stored: {self.choice.why}" if self.choice is not None else self._stored()
        checks = [
            PathCheck(check.path, admitted=False, how=why) if check.path == "replay" and check.admitted else check
            for check in self.check.checks
            if check.path != STORE_DTYPE
        ]
        return replace(self.check, checks=tuple(checks))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        done = picked(self, "check", "choice", "rows", "bytes", "computed")
        return {"line": str(self)} | done | {"seconds": round(self.seconds, 3), "guard": dict(self.guard)}
