"""What a plan costs before it is trained: time, memory and disk, reckoned unit by unit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from frostline.engine.cost.choice import Choice, choose
from frostline.engine.cost.costs import Measured, Where, Work
from frostline.engine.cost.units import UnitCost, frost_line_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.engine.cost.machines import Speeds
    from frostline.engine.settings import EngineSettings

# Up to so many bytes that train are copied in the first step, to see what it moves.
_WATCHED = 512 * 2**20
_FILLING_TOKENS = 2048  # of a batch of the filling pass
_GUARD = 0.01  # of the time, at most
# What oneDNN keeps per number of tokens, weight's shape and direction, and how many of them (docs/engine-cost.md).
_PREPARED_BYTES, _MOST_PREPARED = 570_000, 1024
_RUNTIME_BYTES = 30_000_000  # what a Trainer's first run of a process takes in any case, measured
_FORWARD, _INPUTS, _WEIGHTS = 1 / 3, 1 / 3, 1 / 3  # shares of a layer's forward and backward


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a run, as batches meet them.

    Attributes:
        rows: How many there are.
        tokens: Their tokens, padding left out.
        squares: The sum of their squared numbers of tokens, which is what attention grows by.
        padded: Positions of an epoch's batches, each padded to its longest row.
        largest: Tokens of the largest batch.
        largest_padded: Its positions, padding included.
        batch_size: Rows per step.
        steps: Steps of an epoch.
        counts: How many different numbers of tokens the packed batches have.
    """

    rows: int
    tokens: int
    squares: int
    padded: int
    largest: int
    largest_padded: int
    batch_size: int
    steps: int
    counts: int

    @property
    def met(self) -> float:
        """Mean tokens of a row, as a token meets them."""
        return self.squares / self.tokens


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a run.

    Attributes:
        start: The self-check, measuring, and the fingerprint.
        fill: The filling pass.
        epoch: One epoch.
        end: The proof.
        total: All of it.
    """

    start: float
    fill: float
    epoch: float
    end: float
    total: float


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


@dataclass(frozen=True, slots=True)
class Cost:
    """What one plan costs.

    Attributes:
        times: Seconds.
        memory: Bytes.
        choice: Where activations are kept, and the break-even; None where nothing lies beneath what trains.
        trainer_seconds: What ``transformers.Trainer`` would take with the same frozen, padding each batch.
    """

    times: Times
    memory: Memory
    choice: Choice | None
    trainer_seconds: float

    @property
    def where(self) -> Where:
        """Where activations are kept."""
        return "nowhere" if self.choice is None else self.choice.where

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "seconds": asdict(self.times),
            "bytes": self.memory.to_dict(),
            "store": self.where,
            "break_even": self.choice.break_even if self.choice is not None else None,
            "trainer_seconds": self.trainer_seconds,
        }


def cost_of(
    units: Sequence[UnitCost],
    rows: Rows,
    epochs: float,
    speeds: Speeds,
    settings: EngineSettings,
    *,
    keeps: bool,
    is_half: bool,
    free_memory: int,
    free_disk: int,
) -> Cost:
    """Reckon what a plan costs.

    Args:
        units: Of the model, frozen as the plan says.
        rows: What it trains on.
        epochs: Passes over them.
        speeds: Of the machine.
        settings: What the engine may do.
        keeps: Whether frozen modules stay in eval mode, so that what they give can be kept.
        is_half: Whether matrix products run in bf16 or fp16.
        free_memory: Bytes of free memory.
        free_disk: Bytes of free space in the folder of stores.
    """
    line = frost_line_of(tuple(units)) or 0
    beneath, above = units[:line], units[line:]
    work = Work(rows=rows.rows, tokens=rows.tokens, passes=epochs)
    choice = None
    if beneath and keeps and any(unit.parameters for unit in beneath):
        choice = choose(settings, work, _measured(beneath, above, speeds), free_memory, free_disk)
    times = _times(units, line, rows, epochs, speeds, choice)
    memory = _memory(units, line, rows, speeds, choice, is_half=is_half)
    return Cost(times, memory, choice, _in_trainer(units, line, rows, epochs, speeds))


def _measured(beneath: Sequence[UnitCost], above: Sequence[UnitCost], speeds: Speeds) -> Measured:
    """What the prefix costs, in the words of the run's own reckoning."""
    fill = prefix_seconds(beneath, speeds)
    above_layers = any(unit.kind == "layer" for unit in above)
    token_bytes = speeds.token_bytes if above_layers else speeds.head_token_bytes
    row_bytes = 0.0 if above_layers else speeds.head_row_bytes
    return Measured(fill, fill * speeds.anew, token_bytes, row_bytes, speeds.memory, speeds.disk)


def prefix_seconds(beneath: Sequence[UnitCost], speeds: Speeds) -> float:
    """Seconds per token of what lies beneath the frost line, as the store is filled."""
    layers = sum(unit.kind == "layer" for unit in beneath)
    return layers * speeds.fill_layer + any(unit.kind == "embeddings" for unit in beneath) * speeds.fill_embeddings


def suffix_seconds(units: Sequence[UnitCost], line: int, speeds: Speeds) -> float:
    """Seconds per token of a step of what lies at and above the frost line, forward and backward."""
    above = units[line:]
    layers = [unit for unit in above if unit.kind == "layer"]
    seconds = 0.0
    for place, unit in enumerate(reversed(layers)):
        whole = speeds.last if place == 0 else speeds.lowest if place == 1 else speeds.layer
        seconds += whole * (1 - (1 - unit.trained_share) * _WEIGHTS)
    embeddings = [unit for unit in above if unit.kind == "embeddings"]
    if embeddings:
        seconds += speeds.embeddings
        if len(layers) > 1:  # the lowest layer gives a gradient on to them
            seconds += max(0.0, speeds.layer - speeds.lowest)
    return seconds


def _times(
    units: Sequence[UnitCost], line: int, rows: Rows, epochs: float, speeds: Speeds, choice: Choice | None
) -> Times:
    layers = sum(unit.kind == "layer" for unit in units)
    trainable = sum(unit.trainable_parameters for unit in units)
    proof = sum(unit.bytes for unit in units) * speeds.byte
    fill, again = 0.0, rows.tokens * prefix_seconds(units[:line], speeds) * speeds.anew
    if choice is not None and choice.where != "nowhere":
        stored = next(one for one in choice.alternatives if one.where == choice.where)
        fill, again = stored.once, stored.again / epochs
    epoch = again + rows.tokens * suffix_seconds(units, line, speeds) + rows.rows * speeds.head
    epoch += rows.steps * (speeds.overhead + trainable * speeds.parameter)
    epoch *= 1 + _GUARD
    start = speeds.check_fixed + speeds.check * layers + proof
    return Times(start, fill, epoch, proof, start + fill + epochs * epoch + proof)


def _in_trainer(units: Sequence[UnitCost], line: int, rows: Rows, epochs: float, speeds: Speeds) -> float:
    """Seconds of transformers.Trainer: every layer forward, those from the frost line on backward, all of it padded."""
    above = [unit for unit in units[line:] if unit.kind == "layer"]
    layers = sum(unit.kind == "layer" for unit in units)
    backward = speeds.padded_layer - speeds.padded_forward
    per_position = layers * speeds.padded_forward
    per_position += sum(backward * (1 - (1 - unit.trained_share) / 2) for unit in above)
    trainable = sum(unit.trainable_parameters for unit in units)
    per_epoch = rows.padded * per_position + rows.steps * (speeds.overhead + trainable * speeds.parameter)
    return epochs * per_epoch


def _memory(
    units: Sequence[UnitCost], line: int, rows: Rows, speeds: Speeds, choice: Choice | None, *, is_half: bool
) -> Memory:
    weights = sum(unit.bytes for unit in units)
    gradients = sum(unit.trainable_bytes for unit in units)
    optimizer = sum(unit.optimizer_bytes for unit in units)
    activations = _activations(units, line, rows, is_half=is_half)
    stored = 0
    if choice is not None and choice.where != "nowhere":
        stored = next(one.bytes for one in choice.alternatives if one.where == choice.where)
        stored = min(stored, choice.budget)
    in_memory = choice is not None and choice.where == "memory"
    # The first step is watched by copies of what trains; the guard compares two sets of gradients.
    copies = gradients if gradients <= _WATCHED else 0
    prepared = _prepared(units, line, rows, is_half=is_half) if speeds.products else 0
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        working=copies + prepared + _RUNTIME_BYTES,
        store=stored if in_memory else 0,
        disk=stored if choice is not None and choice.where == "disk" else 0,
    )


def _activations(units: Sequence[UnitCost], line: int, rows: Rows, *, is_half: bool) -> int:
    """What the backward pass of the largest batch needs, and one layer's gradients on the way."""
    above = units[line:]
    size = 2 if is_half else 4
    per_token = sum(unit.saved for unit in above if not unit.per_row)
    per_row = sum(unit.saved for unit in above if unit.per_row)
    way = max((unit.saved for unit in above if not unit.per_row), default=0.0)
    kept = rows.largest * (per_token + way) + rows.batch_size * per_row
    casts = sum(unit.trainable_bytes // 2 for unit in above if unit.kind != "embeddings") if is_half else 0
    return round(kept * size) + casts


def _prepared(units: Sequence[UnitCost], line: int, rows: Rows, *, is_half: bool) -> int:
    """What oneDNN keeps of shapes."""
    above = any(unit.kind == "layer" for unit in units[line:])
    shapes = 3 * (3 * rows.counts if above else 1)
    if is_half:
        shapes += 6 * rows.steps * above
    return min(shapes, _MOST_PREPARED) * _PREPARED_BYTES
