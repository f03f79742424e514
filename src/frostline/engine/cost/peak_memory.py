"""The memory at the peak of a training run, part by part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.engine.cost.batch_rows import Rows
    from frostline.engine.cost.choice import Choice
    from frostline.engine.cost.machines import Speeds
    from frostline.engine.cost.units import UnitCost

# Up to so many bytes that train are copied in the first step, to see what it moves.
_WATCHED = 512 * 2**20
_FILLING_TOKENS = 2048  # of a batch of the filling pass
# What oneDNN keeps per number of tokens, weight's shape and direction, and how many of them (docs/engine-cost.md).
_PREPARED_BYTES, _MOST_PREPARED = 570_000, 1024
_IN_A_STEP = 15  # shapes of attention's products, measured
_TRIED = 50  # shapes that the self-check prepares besides
_LOST = 0.1  # of what is allocated in many blocks, measured
ON_THE_WAY = 2.0  # gradients within a layer beside what it kept, as a multiple of that; measured
OF_LAST = 3  # times its width: hidden states, the same padded, and their gradient
_RUNTIME_BYTES = 30_000_000  # what a Trainer's first run of a process takes in any case, measured


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak of a run; the parts add up to it.

    Attributes:
        weights: Parameters and buffers, frozen or not.
        gradients: Of what trains.
        optimizer: The state of AdamW.
        activations: What autograd keeps of the largest batch, and what its backward pass takes on its way.
        working: What Frostline's own checks hold for a while, beyond that, and what libraries keep.
        store: Activations of the frozen part, where they are kept in memory.
        disk: The same on disk; no part of the peak.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    store: int
    disk: int

    @property
    def peak(self) -> int:
        """All of it but what is on disk."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working + self.store

    def to_dict(self) -> dict[str, int]:
        """As plain values."""
        return asdict(self) | {"peak": self.peak}


def memory_of(
    units: Sequence[UnitCost],
    line: int,
    rows: Rows,
    epochs: float,
    speeds: Speeds,
    choice: Choice | None,
    *,
    is_half: bool,
) -> Memory:
    """Reckon the memory at the peak of a run.

    Args:
        units: Of the model, frozen as the plan says.
        line: The place of the frost line.
        rows: What it trains on.
        epochs: Passes over them.
        speeds: Of the machine, which say what paths were admitted.
        choice: Where activations are kept; None where none can be.
        is_half: Whether matrix products run in half precision.
    """
    weights = sum(unit.bytes for unit in units)
    gradients = sum(unit.trainable_bytes for unit in units)
    optimizer = sum(unit.optimizer_bytes for unit in units)
    activations = _activations(units, line, rows, one_position=speeds.one_position, is_half=is_half)
    stored = 0
    if choice is not None and choice.where != "nowhere":
        stored = next(one.bytes for one in choice.alternatives if one.where == choice.where)
        stored = min(stored, choice.budget)
    in_memory = choice is not None and choice.where == "memory"
    prepared = _prepared(units, line, rows, epochs, is_half=is_half) if speeds.products else 0
    checks = _checks(units, gradients, optimizer)
    filling = _filling(units[:line], rows) if stored else 0
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        working=max(checks, filling - gradients - optimizer - activations) + prepared + _RUNTIME_BYTES,
        store=stored if in_memory else 0,
        disk=stored if choice is not None and choice.where == "disk" else 0,
    )


def _checks(units: Sequence[UnitCost], gradients: int, optimizer: int) -> int:
    """What Frostline's checks take beyond gradients and optimizer state, and what the allocator loses on all of these.

    The first step is watched by copies of what trains, if they are not too large. The guard holds a set of gradients
    where the step is yet to have its own, and the one at hand, while the engine keeps the gradient of a table of
    embeddings. By then activations are free, but the allocator has not given their memory back.
    """
    watched = gradients if gradients <= _WATCHED else 0
    largest = max((unit.largest_trainable_bytes for unit in units), default=0)
    table = max((unit.largest_trainable_bytes for unit in units if unit.kind == "embeddings"), default=0)
    most = max(watched, largest + table)
    return most + round(_LOST * (gradients + optimizer + most))


def _filling(beneath: Sequence[UnitCost], rows: Rows) -> int:
    """What a batch of the filling pass takes: of one layer at a time, as nothing is kept for a backward pass."""
    tokens = min(_FILLING_TOKENS, rows.tokens)
    return round(4 * tokens * max((unit.saved for unit in beneath if not unit.per_row), default=0.0))


def _activations(units: Sequence[UnitCost], line: int, rows: Rows, *, one_position: bool, is_half: bool) -> int:
    """What the backward pass of the largest batch needs, and the gradients within one layer on the way.

    Args:
        units: Of the model.
        line: The place of the frost line.
        rows: What it trains on.
        one_position: Whether the last layer runs for one position of each row: of the others, little is kept then.
        is_half: Whether matrix products run in half precision.
    """
    above = units[line:]
    layers = [unit for unit in above if unit.kind == "layer"]
    last = layers[-1] if layers and one_position else None
    whole = [unit for unit in above if not unit.per_row and unit is not last]
    way = ON_THE_WAY * max((unit.saved for unit in whole), default=0.0)
    per_token = sum(unit.saved for unit in whole) + way + (OF_LAST * last.width if last is not None else 0)
    per_row = sum(unit.saved for unit in above if unit.per_row or unit is last)
    kept = rows.largest * per_token + rows.batch_size * per_row
    masks = rows.largest * rows.met * sum(unit.heads for unit in whole)
    casts = sum(unit.trainable_bytes // 2 for unit in above if unit.kind != "embeddings") if is_half else 0
    return round(kept * (2 if is_half else 4) + masks) + casts


def _prepared(units: Sequence[UnitCost], line: int, rows: Rows, epochs: float, *, is_half: bool) -> int:
    """What oneDNN keeps of shapes; in half precision of those of attention too, others in each step."""
    above = any(unit.kind == "layer" for unit in units[line:])
    shapes = _TRIED + 3 * (3 * rows.counts if above else 1)
    if is_half:
        shapes += round(_IN_A_STEP * rows.steps * epochs) * above
    return min(shapes, _MOST_PREPARED) * _PREPARED_BYTES
