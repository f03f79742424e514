"""What stores are to hold of a batch, computed for several frost lines of one model in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from frostline.engine.selfcheck.model_state import keeping_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from frostline.engine.batch_inputs import Call
    from frostline.engine.fast_paths import FastPaths
    from frostline.engine.runner import Runner
    from frostline.store.store import Store


@dataclass(frozen=True)
class Wanted:
    """What one store is to hold of a batch.

    Attributes:
        call: The batch.
        digests: Of its rows, 16 bytes each.
        paths: What the forward is spared at the store's boundary.
        store: The store.
        budget: The most bytes that it may take.
        changes: Whether a forward changes what modules hold.
    """

    call: Call
    digests: list[bytes]
    paths: FastPaths
    store: Store
    budget: int
    changes: bool

    @property
    def has_room(self) -> bool:
        """Whether the store may take more."""
        return self.store.bytes_used < self.budget

    @property
    def missing(self) -> list[int]:
        """The rows that the store does not hold; of equal ones the first."""
        return self.store.missing(self.digests)

    def runs_as(self, other: Wanted) -> bool:
        """Whether the layers beneath the lower of both boundaries run in the same way for either."""
        return _way(self.paths) == _way(other.paths)


def _way(paths: FastPaths) -> tuple[object, ...]:
    # By what kernel products are computed was measured, by speed; it decides on rounding only.
    return paths.trim, paths.packing, paths.positions, paths.places, paths.whole, paths.aligned, paths.drops


def fill_stores(model: nn.Module, runner: Runner, wanted: Sequence[Wanted]) -> list[int]:
    """Compute what stores do not hold of a batch, and keep it as far as there is room.

    Args:
        model: The model inside its wrappers.
        runner: Runs it.
        wanted: Per boundary, what its store is to hold.

    Returns:
        How many rows were computed for each.

    Raises:
        NotReplayable: If such rows cannot be stored.
    """
    missing = [one.missing if one.has_room else [] for one in wanted]
    counts = [len(rows) for rows in missing]
    left = sorted((number for number, count in enumerate(counts) if count), key=lambda number: _depth(wanted[number]))
    while left:
        deepest = wanted[left[-1]]
        group = [number for number in left if wanted[number].runs_as(deepest)]
        left = [number for number in left if number not in group]
        rows = sorted({row for number in group for row in missing[number]})
        with keeping_state(model, changes=any(wanted[number].changes for number in group)):
            values = runner.tap_each(deepest.call.select(rows), [wanted[number].paths for number in group])
        for number, own in zip(group, values, strict=True):
            wanted[number].store.put([wanted[number].digests[row] for row in rows], own)
    return counts


def _depth(wanted: Wanted) -> int:
    return wanted.paths.replay.skipped if wanted.paths.replay is not None else 0
