"""What `estimate` found, for people and for files."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from frostline.base.json import finite
from frostline.base.plain_table import plain_table
from frostline.engine.cost.costs import bytes_text, seconds_text
from frostline.plan.describe import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frostline.engine.cost.estimate import Cost
    from frostline.engine.cost.machines import Speeds
    from frostline.engine.cost.rows import Rows
    from frostline.engine.cost.units import UnitCost


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan will cost.

    Attributes:
        model_class: Name of the model's class.
        trains: What trains, as a selector; likewise `freezes`.
        freezes: See there.
        rows: What it trains on.
        epochs: Passes over the rows.
        dtype: Precision of the computation.
        device: The machine that it is for.
        units: What each unit weighs and computes.
        speeds: Of the machine.
        plan: What the plan costs.
        everything: What training everything would cost on the same rows.
        remarks: What follows for the plan, in sentences.
        assumptions: What was not measured, in sentences.
    """

    model_class: str
    trains: str
    freezes: str
    rows: Rows
    epochs: float
    dtype: str
    device: str
    units: tuple[UnitCost, ...]
    speeds: Speeds
    plan: Cost
    everything: Cost
    remarks: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return self.plan.times.total

    @property
    def peak_bytes(self) -> int:
        """Bytes at the peak, libraries left out."""
        return self.plan.memory.peak

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        parameters = sum(unit.parameters for unit in self.units)
        trainable = sum(unit.trainable_parameters for unit in self.units)
        values = {
            "model_class": self.model_class,
            "trains": self.trains,
            "freezes": self.freezes,
            "parameters": parameters,
            "trainable_parameters": trainable,
            **asdict(self.rows),
            "epochs": self.epochs,
            "dtype": self.dtype,
            "device": self.device,
            "plan": self.plan.to_dict(),
            "everything": self.everything.to_dict(),
            "units": [asdict(unit) for unit in self.units],
            "speeds": asdict(self.speeds),
            "remarks": list(self.remarks),
            "assumptions": list(self.assumptions),
        }
        return finite(values)  # type: ignore[no-any-return]

    def line(self) -> str:
        """What matters, in one line."""
        times, memory = self.plan.times, self.plan.memory
        disk = f", {bytes_text(memory.disk)} of disk" if memory.disk else ""
        everything = (
            f"; everything would take {duration_text(self.everything.times.total)} and "
            f"{bytes_text(self.everything.memory.peak)}"
        )
        return (
            f"Estimate: {duration_text(times.total)} ({duration_text(times.epoch)} per epoch), "
            f"{bytes_text(memory.peak)} of memory above the libraries{disk}"
            f"{everything if self.plan != self.everything else ''}."
        )

    def __str__(self) -> str:
        table = plain_table(COLUMNS, table_rows(self), right_aligned=COLUMNS[1:])
        return "\n".join([*head_lines(self), "", *table, "", *tail_lines(self)])


COLUMNS = ("", "this plan", "train everything")


def head_lines(found: Estimate) -> Iterator[str]:
    """What is estimated, in sentences."""
    parameters = sum(unit.parameters for unit in found.units)
    trainable = sum(unit.trainable_parameters for unit in found.units)
    yield (
        f"{found.model_class}: {trainable:,} of {parameters:,} parameters train: {shortened(found.trains)}. "
        f"Frozen: {shortened(found.freezes) or 'nothing'}."
    )
    rows = found.rows
    yield (
        f"Ahead: {found.epochs:g} epochs of {rows.rows:,} rows ({rows.tokens:,} tokens, "
        f"{rows.tokens / rows.rows:.1f} per row), {math.ceil(found.epochs * rows.steps):,} steps of "
        f"{rows.batch_size} rows, {found.dtype}."
    )
    yield f"Machine: {found.device}; {found.speeds.how}."


def table_rows(found: Estimate) -> Iterator[tuple[str, str, str]]:
    """The rows of the table, in the order of `COLUMNS`."""
    sides = (found.plan, found.everything)

    def row(name: str, texts: Sequence[str]) -> tuple[str, str, str]:
        return (name, texts[0], texts[1])

    yield row("time", [duration_text(side.times.total) for side in sides])
    for part in ("start", "fill", "epoch", "end"):
        seconds = [getattr(side.times, part) for side in sides]
        yield row(f"  {_PARTS[part]}", [duration_text(one) if one else "-" for one in seconds])
    yield row("transformers.Trainer", [duration_text(side.trainer_seconds) for side in sides])
    yield row("peak memory", [bytes_text(side.memory.peak) for side in sides])
    for part in ("weights", "gradients", "optimizer", "activations", "working", "store"):
        sizes = [getattr(side.memory, part) for side in sides]
        yield row(f"  {_PARTS.get(part, part)}", [bytes_text(one) if one else "-" for one in sizes])
    yield row("disk", [bytes_text(side.memory.disk) if side.memory.disk else "-" for side in sides])


_PARTS = {
    "start": "checks at the start",
    "fill": "filling the store",
    "epoch": "each epoch",
    "end": "proof",
    "working": "checks and libraries",
}


def tail_lines(found: Estimate) -> Iterator[str]:
    """What follows, and what was assumed."""
    yield from found.remarks
    if found.assumptions:
        yield f"Assumed: {'; '.join(found.assumptions)}."


def duration_text(seconds: float) -> str:
    """A time for people, long ones too: ``7.2 s``, ``12 min``, ``3.4 h``, ``5.1 days``."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"
    return seconds_text(seconds)
