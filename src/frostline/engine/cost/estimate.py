"""What a plan costs before it is trained: time, memory and disk, reckoned unit by unit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from frostline.engine.cost.choice import Choice, choose
from frostline.engine.cost.costs import Measured, Where, Work
from frostline.engine.cost.peak_memory import Memory, memory_of
from frostline.engine.cost.units import UnitCost, frost_line_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.engine.cost.batch_rows import Rows
    from frostline.engine.cost.machines import Speeds
    from frostline.engine.settings import EngineSettings

GUARD = 0.01  # of the time, at most
WEIGHTS = 1 / 3  # the share of the weights' gradients in a layer's forward and backward


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
    line = frost_line_of(units) or 0
    beneath = units[:line]
    work = Work(rows=rows.rows, tokens=rows.tokens, passes=epochs)
    choice = None
    if beneath and keeps and any(unit.parameters for unit in beneath):
        choice = choose(settings, work, _measured(units, line, speeds), free_memory, free_disk)
    times = _times(units, line, rows, epochs, speeds, choice)
    memory = memory_of(units, line, rows, epochs, speeds, choice, is_half=is_half)
    return Cost(times, memory, choice, _in_trainer(units, line, rows, epochs, speeds))


def _measured(units: Sequence[UnitCost], line: int, speeds: Speeds) -> Measured:
    """What the prefix costs, in the words of the run's own reckoning."""
    fill = prefix_seconds(units, line, speeds)
    above_layers = any(unit.kind == "layer" for unit in units[line:])
    token_bytes = speeds.token_bytes if above_layers else speeds.head_token_bytes
    row_bytes = 0.0 if above_layers else speeds.head_row_bytes
    return Measured(fill, fill * speeds.anew, token_bytes, row_bytes, speeds.memory, speeds.disk)


def prefix_seconds(units: Sequence[UnitCost], line: int, speeds: Speeds) -> float:
    """Seconds per token of what lies beneath the frost line, as the store is filled."""
    kinds = [unit.kind for unit in units[:line]]
    layers = kinds.count("layer")
    seconds = layers * speeds.fill_layer + ("embeddings" in kinds) * speeds.fill_embeddings
    if layers and not any(unit.kind == "layer" for unit in units[line:]):
        seconds += speeds.fill_last - speeds.fill_layer
    return seconds


def suffix_seconds(units: Sequence[UnitCost], line: int, speeds: Speeds) -> float:
    """Seconds per token of a step of what lies at and above the frost line, forward and backward."""
    above = units[line:]
    layers = [unit for unit in above if unit.kind == "layer"]
    seconds = 0.0
    for place, unit in enumerate(reversed(layers)):
        whole = speeds.last if place == 0 else speeds.lowest if place == 1 else speeds.layer
        seconds += whole * (1 - (1 - unit.trained_share) * WEIGHTS)
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
    fill, again = 0.0, rows.tokens * prefix_seconds(units, line, speeds) * speeds.anew
    if choice is not None and choice.where != "nowhere":
        stored = next(one for one in choice.alternatives if one.where == choice.where)
        fill, again = stored.once, stored.again / epochs
    steps = rows.tokens * suffix_seconds(units, line, speeds) + rows.rows * speeds.head
    steps += rows.steps * (speeds.overhead + trainable * speeds.parameter)
    epoch = again + steps * (1 + GUARD)
    share = trainable / max(1, sum(unit.parameters for unit in units))
    check = (speeds.check_fixed + speeds.check * layers) * (1 + (speeds.check_trained - 1) * share)
    start = check + proof
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
