"""What `estimate` found, for people and for files."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from frostline.base.json import finite
from frostline.base.plain_table import plain_table
from frostline.engine.cost.costs import bytes_text, seconds_text
from frostline.plan.describe import shortened
from frostline.report.page import fragment
from frostline.report.svg import tower_svg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from frostline.engine.cost.batch_rows import Rows
    from frostline.engine.cost.estimate import Cost
    from frostline.engine.cost.machines import Speeds
    from frostline.engine.cost.units import UnitCost
    from frostline.evidence.inspect.inspection import Inspection


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
        inspection: The model, frozen as the plan says.
        basis: What the page reckons other plans by.
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
    inspection: Inspection
    basis: Mapping[str, Any]

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

    def to_html(self) -> str:
        """The estimate as a page: the plan beside training everything, and the tower in which the plan can be moved."""
        return self.inspection.page(
            "estimate.html",
            costs=self.basis,
            kind="estimate",
            verdict=self.line(),
            facts=list(head_lines(self)),
            follows=list(tail_lines(self)),
            estimated=(
                ("part", *COLUMNS[1:]),
                [(name.replace("  ", "\u2003"), *texts) for name, *texts in table_rows(self)],
                COLUMNS[1:],
            ),
            bars=list(_bars(self)),
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, the tower, and what follows, without a script."""
        return fragment(self.line(), tower_svg(self.inspection.tower.to_dict()), tail_lines(self))

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
    for part in _MEMORY:
        sizes = [getattr(side.memory, part) for side in sides]
        yield row(f"  {_PARTS.get(part, part)}", [bytes_text(one) if one else "-" for one in sizes])
    yield row("disk", [bytes_text(side.memory.disk) if side.memory.disk else "-" for side in sides])


def _bars(found: Estimate) -> Iterator[dict[str, Any]]:
    """The parts of time and memory, as bars that are as long as they are large."""
    sides = dict(zip(COLUMNS[1:], (found.plan, found.everything), strict=True))
    times = {name: asdict(side.times) | {"epoch": found.epochs * side.times.epoch} for name, side in sides.items()}
    trainer = {"transformers.Trainer, the same frozen": {"epoch": found.plan.trainer_seconds}}
    parts = {"start": _PARTS["start"], "fill": _PARTS["fill"], "epoch": "all epochs", "end": _PARTS["end"]}
    yield _drawn("Time", parts, times | trainer, duration_text)
    sizes = {name: asdict(side.memory) for name, side in sides.items()}
    yield _drawn("Memory at the peak", {part: _PARTS.get(part, part) for part in _MEMORY}, sizes, bytes_text)


def _drawn(
    title: str, parts: Mapping[str, str], bars: Mapping[str, Mapping[str, float]], text: Callable[[float], str]
) -> dict[str, Any]:
    """One bar per name: its parts as places from 0 to 100, of the longest bar."""
    totals = {name: sum(values.get(part, 0.0) for part in parts) for name, values in bars.items()}
    longest = max(totals.values())
    drawn = []
    for name, values in bars.items():
        at, pieces = 0.0, []
        for number, part in enumerate(parts):
            width = 100 * values.get(part, 0.0) / longest
            pieces.append((number, round(at, 3), round(width, 3)))
            at += width
        said = ", ".join(f"{parts[part]} {text(values[part])}" for part in parts if values.get(part))
        drawn.append({"name": name, "total": text(totals[name]), "said": said, "pieces": pieces})
    return {"title": title, "legend": list(parts.values()), "bars": drawn}


_MEMORY = ("weights", "gradients", "optimizer", "activations", "working", "store")
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
