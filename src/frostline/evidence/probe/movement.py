"""What one step changed: a row per parameter, a row per unit, and a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from frostline.base.json import picked
from frostline.base.plain_table import plain_table
from frostline.plan.describe import shortened

Share = Literal["yes", "no", "partly", "-"]
GradientWord = Literal["yes", "zero", "not finite", "stale", "none"]
Phase = Literal["forward", "backward", "step"]
_GRADIENT_WORDS: tuple[GradientWord, ...] = ("yes", "zero", "not finite", "stale", "none")

COLUMNS = ("unit", "trains", "gradient", "in optimizer", "learning rate", "moved", "relative change", "buffers moved")
PARAMETER_COLUMNS = ("parameter", "trains", "gradient", "in optimizer", "learning rate", "moved", "relative change")
RIGHT_ALIGNED = ("learning rate", "relative change", "buffers moved")
# Go in this order where there is no room.
MINOR = ("buffers moved", "relative change", "learning rate", "in optimizer")


@dataclass(frozen=True, slots=True)
class ProbeParameter:
    """What a step did to one parameter.

    Attributes:
        name: Its name in the model; a tied one under its first.
        unit: The unit it is in.
        trainable: Its flag.
        gradient: ``yes``; ``zero``: there is one, and it is 0 throughout; ``not finite``; ``stale``: the parameter
            is frozen and still holds an old one; ``none``.
        in_optimizer: Whether the optimizer holds it.
        learning_rate: The rate of its group; None outside the optimizer.
        moved: Whether a single bit of it differs after the step.
        moved_in: In which part of the step it was first seen to differ; None where it did not move.
        rounded_off: Whether the step was measured to be below the resolution of its dtype; only asked of what got
            a gradient and stayed.
        change: L2 norm of the change relative to that of the values before; None where those were 0 throughout.
        distance: L2 norm of the change.
        size: Norm of the values before.
        dtype: Of its values, as torch names it.
        elements: Number of its values.
        moved_later: Whether it moved in a later step of the run; only asked of what got a gradient of 0 in the first.
    """

    name: str
    unit: str
    trainable: bool
    gradient: GradientWord
    in_optimizer: bool
    learning_rate: float | None
    moved: bool
    moved_in: Phase | None
    rounded_off: bool
    change: float | None
    distance: float
    size: float
    dtype: str
    elements: int
    moved_later: bool = False

    @property
    def surprising(self) -> bool:
        """Whether the flag says one thing and the step did another."""
        return self.elements > 0 and self.moved != self.trainable and not self.moved_later

    @property
    def stayed_with_gradient(self) -> bool:
        """Whether the optimizer had all that it needs to move it, and did not."""
        able = self.trainable and self.in_optimizer and bool(self.learning_rate) and self.gradient == "yes"
        return able and self.elements > 0 and not self.moved

    @property
    def without_slope(self) -> bool:
        """Whether the optimizer left it where it was for a gradient that is 0 throughout, and for nothing else."""
        return self.trainable and not self.moved and self.in_optimizer and self.gradient == "zero"

    @property
    def cause(self) -> str:
        """Why a surprising parameter moved, or stayed; only what was seen."""
        return self._why_moved if self.moved else self._why_stayed

    @property
    def _why_moved(self) -> str:
        if self.moved_in == "forward":
            return "the forward writes into it"
        if self.moved_in == "backward":
            return "something writes into it during the backward"
        if not self.in_optimizer:
            return "something writes into it during the optimizer's step, though the optimizer does not hold it"
        if self.gradient == "stale":
            return "the optimizer holds it, and it keeps an old gradient"
        return "the optimizer moves it without a gradient"

    @property
    def _why_stayed(self) -> str:
        if not self.in_optimizer:
            return "not in the optimizer"
        if self.gradient == "none":
            return "no gradient"
        if not self.learning_rate:
            return "learning rate 0"
        if self.gradient == "zero":
            return "its gradient is 0"
        return f"the change is lost to rounding in {self.dtype}" if self.rounded_off else "no cause was found"


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """What a step did to one unit.

    Attributes:
        name: The unit.
        trainable: ``yes``, ``no``, ``partly``, or ``-`` for a unit without parameters; by the flags.
        gradient: The words of its parameters, as in `ProbeParameter`.
        in_optimizer: As `trainable`.
        learning_rates: Those of its parameters, each once.
        moved: As `trainable`, but by what the step did.
        change: L2 norm of the change of all its parameters together, relative to that of the values before;
            None where those were 0 throughout.
        buffers: Number of its buffers.
        buffers_moved: Names of those that moved; None where they were not looked at.
    """

    name: str
    trainable: Share
    gradient: tuple[GradientWord, ...]
    in_optimizer: Share
    learning_rates: tuple[float, ...]
    moved: Share
    change: float | None
    buffers: int
    buffers_moved: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Probe:
    """What one real step changed.

    Attributes:
        model_class: Name of the model's class.
        rows: One per unit, in depth order.
        parameters: One per parameter, by unit in depth order.
        changes: What moved, as a selector; ``""`` for nothing.
        loss: The loss of the step; None where it was not looked at.
        optimizer: Which optimizer took the step, in words.
        skipped: Whether the gradient scaler skipped the step, because a gradient was not finite.
        strangers: Number of tensors in the optimizer that are not the model's.
        copied_bytes: Memory that the copies took from which everything was put back, in bytes.
    """

    model_class: str
    rows: tuple[ProbeRow, ...]
    parameters: tuple[ProbeParameter, ...]
    changes: str
    loss: float | None
    optimizer: str
    skipped: bool = False
    strangers: int = 0
    copied_bytes: int = 0

    @property
    def surprises(self) -> tuple[ProbeParameter, ...]:
        """The parameters that train by their flag and stayed, and those that are frozen and moved."""
        return () if self.skipped else tuple(parameter for parameter in self.parameters if parameter.surprising)

    @property
    def ok(self) -> bool:
        """Whether what moved is what the flags say."""
        return not self.surprises and not self.skipped

    @property
    def verdict(self) -> str:
        """What the step changed, and where that is not what the flags say, in one sentence."""
        moved = sum(parameter.moved for parameter in self.parameters)
        total = len(self.parameters)
        if self.skipped:
            return "The gradient scaler skipped the step, since a gradient was not finite: nothing can be said."
        if not moved:
            said = f"A step changes none of the {total} parameter tensors"
        elif moved == total:
            said = f"A step changes all {total} parameter tensors"
        else:
            said = f"A step changes {moved} of {total} parameter tensors: {shortened(self.changes)}"
        later = sum(parameter.moved_later for parameter in self.parameters)
        if later:
            said += f"; {later} more, whose gradient was 0, moved in a later one"
        text = "; ".join((said, *surprises_in_words(self.surprises)))
        return text if text.endswith("…") else f"{text}."

    def to_dict(self) -> dict[str, Any]:
        """The probe as plain values."""
        step = ("model_class", "verdict", "ok", "changes", "loss", "optimizer", "skipped", "strangers", "copied_bytes")
        return picked(self, *step, "rows") | {
            "parameters": {
                parameter.name: {key: value for key, value in asdict(parameter).items() if key != "name"}
                | {"cause": parameter.cause if parameter.surprising and not self.skipped else None}
                for parameter in self.parameters
            },
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What the table does not show."""
        loss = f"; loss {self.loss:.4f}" if self.loss is not None else ""
        notes = [f"Optimizer: {self.optimizer}{loss}."]
        if self.strangers:
            notes.append(f"The optimizer holds {self.strangers} tensors that are not the model's: build it anew.")
        return tuple(notes)

    def __str__(self) -> str:
        lines = [
            self.verdict,
            "",
            *plain_table(COLUMNS, (row_cells(row) for row in reversed(self.rows)), RIGHT_ALIGNED),
        ]
        return "\n".join([*lines, "", *self.notes])


def surprises_in_words(surprises: Iterable[ProbeParameter]) -> list[str]:
    """Say in a clause per cause which parameters did not do what their flag says."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for parameter in surprises:
        groups.setdefault((parameter.moved, parameter.cause), []).append(parameter.name)
    return [
        f"{len(names)} {'frozen by flag, but moved' if moved else 'trainable by flag, but unmoved'} ({cause}): "
        f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        for (moved, cause), names in groups.items()
    ]


def row_of(
    unit: str, parameters: Sequence[ProbeParameter], buffers: int, buffers_moved: tuple[str, ...] | None
) -> ProbeRow:
    """Sum up the parameters and buffers of one unit."""
    words = {parameter.gradient for parameter in parameters}
    distance = sum(parameter.distance**2 for parameter in parameters) ** 0.5
    size = sum(parameter.size**2 for parameter in parameters) ** 0.5
    return ProbeRow(
        name=unit,
        trainable=_share([parameter.trainable for parameter in parameters]),
        gradient=tuple(word for word in _GRADIENT_WORDS if word in words),
        in_optimizer=_share([parameter.in_optimizer for parameter in parameters]),
        learning_rates=tuple(sorted({p.learning_rate for p in parameters if p.learning_rate is not None})),
        moved=_share([parameter.moved for parameter in parameters]),
        change=relative(distance, size),
        buffers=buffers,
        buffers_moved=buffers_moved,
    )


def relative(distance: float, size: float) -> float | None:
    """A change relative to a size; None where it is a change from nothing."""
    if not distance:
        return 0.0
    return distance / size if size else None


def _share(flags: Sequence[bool]) -> Share:
    if not flags:
        return "-"
    if all(flags):
        return "yes"
    return "partly" if any(flags) else "no"


def row_cells(row: ProbeRow) -> tuple[str, ...]:
    """The texts of one row, in the order of `COLUMNS`."""
    return (
        row.name,
        row.trainable,
        ", ".join(row.gradient) or "-",
        row.in_optimizer,
        ", ".join(f"{rate:g}" for rate in row.learning_rates) or "-",
        row.moved,
        _change(row.change, moved=row.moved in {"yes", "partly"}),
        _buffers(row),
    )


def parameter_cells(parameter: ProbeParameter) -> tuple[str, ...]:
    """The texts of one parameter, in the order of `PARAMETER_COLUMNS`."""
    return (
        parameter.name,
        "yes" if parameter.trainable else "no",
        parameter.gradient,
        "yes" if parameter.in_optimizer else "no",
        f"{parameter.learning_rate:g}" if parameter.learning_rate is not None else "-",
        "yes" if parameter.moved else "no",
        _change(parameter.change, moved=parameter.moved),
    )


def _change(change: float | None, *, moved: bool) -> str:
    if not moved:
        return "-"
    return "from 0" if change is None else f"{change:.1e}"


def _buffers(row: ProbeRow) -> str:
    if not row.buffers:
        return "-"
    return "not looked at" if row.buffers_moved is None else f"{len(row.buffers_moved)} of {row.buffers}"
