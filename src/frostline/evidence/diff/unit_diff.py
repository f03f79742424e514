"""What became of each unit between two checkpoints: its tensors, summed up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.base.json import picked
from frostline.checkpoints.delta.compare import Change
from frostline.evidence.diff.tensor_diff import VERDICTS, TensorDiff, Verdict, figures

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class UnitDiff:
    """What became of one unit.

    Attributes:
        name: The unit, or ``unplaced``.
        verdict: The verdict on its tensors where they share one; ``partly changed`` where some are identical and the
            others changed; else ``mixed``.
        counts: Per verdict that occurs, its number of tensors.
        change: How far base and tuned are apart, over those tensors of the unit that differ; None where none does.
    """

    name: str
    verdict: str
    counts: dict[Verdict, int]
    change: Change | None

    @property
    def tensors(self) -> int:
        """Number of tensors."""
        return sum(self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        return picked(self, "name", "verdict", "tensors", "counts") | figures(self.change)


def unit_diff(name: str, rows: Sequence[TensorDiff]) -> UnitDiff:
    """Sum up the tensors of one unit."""
    counts = Counter(row.verdict for row in rows)
    words = [word for word in VERDICTS if counts[word]]
    if len(words) == 1:
        verdict: str = words[0]
    else:
        verdict = "partly changed" if set(words) == {"identical", "changed"} else "mixed"
    changes = [row.change for row in rows if row.change is not None and "identical" not in (row.verdict, row.common)]
    return UnitDiff(name, verdict, {word: counts[word] for word in words}, sum(changes, Change()) if changes else None)
