"""A schedule: the phases of a training run, one after the other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from frostline.errors import FrostlineError, PlanError
from frostline.plan.phase import PHASE_KEYS, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

OptimizerState = Literal["kept", "reset"]
_KEYS = ("optimizer_state", "phase")


@dataclass(frozen=True, slots=True)
class Schedule:
    """The phases of a training run.

    Attributes:
        phases: In order; each but the last says how long it lasts.
        optimizer_state: What becomes of the optimizer's state (momentum, …) of a parameter that was frozen for a while
            and trains again: ``"kept"`` as it was left, or ``"reset"``.
        name: The preset or the file that it is from, for messages; ``""`` where it was written in Python.

    Raises:
        PlanError: If there is no phase, one that is not the last does not say how long it lasts, or `optimizer_state`
            is unknown.
    """

    phases: tuple[Phase, ...]
    optimizer_state: OptimizerState = "kept"
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.optimizer_state not in get_args(OptimizerState):
            raise PlanError(
                f"{self._place()}optimizer_state is {self.optimizer_state!r}.\nGive 'kept' (the default) or 'reset'."
            )
        if not self.phases:
            raise PlanError(f"{self._place()}there is no phase.\nGive at least one: Phase(train='head').")
        for number, phase in enumerate(self.phases, 1):
            if not isinstance(phase, Phase):
                raise PlanError(f"{self.where(number)}: {phase!r} is no Phase.\nGive Phase(train='head', until=…).")
            if phase.until is None and number < len(self.phases):
                raise PlanError(
                    f"{self.where(number)}: until is missing, and only the last phase may last until the run ends.\n"
                    "Say how long: until = '1 epoch'."
                )

    def where(self, number: int) -> str:
        """A phase in words, for messages: ``'plan.toml', phase 2``.

        Args:
            number: Its number, from 1.
        """
        return f"'{self.name}', phase {number}" if self.name else f"Phase {number}"

    def _place(self) -> str:
        return f"'{self.name}': " if self.name else "Schedule: "

    @contextmanager
    def at(self, number: int) -> Iterator[None]:
        """Have an error of Frostline's in a block say which phase it is about."""
        try:
            yield
        except FrostlineError as error:
            raise type(error)(f"{self.where(number)}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain values, as its file holds them."""
        return {"optimizer_state": self.optimizer_state, "phase": [phase.to_dict() for phase in self.phases]}

    @classmethod
    def from_dict(cls, values: Any, name: str = "") -> Schedule:
        """Build a schedule from plain values.

        Args:
            values: What `to_dict` gives.
            name: The file that they are from, for messages.

        Raises:
            PlanError: If they are no schedule.
        """
        place = f"'{name}'" if name else "The schedule"
        _refuse_unknown(values, _KEYS, place)
        listed = values.get("phase", [])
        if not isinstance(listed, list):
            raise PlanError(f"{place}: phase is {str(listed)[:60]!r}.\nWrite each phase under a line [[phase]].")
        phases = []
        for number, one in enumerate(listed, 1):
            where = f"{place}, phase {number}"
            _refuse_unknown(one, PHASE_KEYS, where)
            if "train" not in one:
                raise PlanError(f"{where}: train is missing.\nName what trains, as a selector: train = 'head'.")
            try:
                phases.append(Phase(**one))
            except PlanError as error:
                raise PlanError(f"{where}: {error}") from None
        return cls(tuple(phases), values.get("optimizer_state", "kept"), name)

    def __str__(self) -> str:
        lines = [f"{number}. {phase}" for number, phase in enumerate(self.phases, 1)]
        return "\n".join([*lines, "What freezes and thaws begins anew."] if self.optimizer_state == "reset" else lines)


def _refuse_unknown(values: Any, known: Iterable[str], place: str) -> None:
    known = tuple(known)
    if not isinstance(values, Mapping):
        raise PlanError(f"{place}: {str(values)[:60]!r} is no table.\nIt has {', '.join(known)}.")
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            mend = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(known)}."
            raise PlanError(f"{place}: the key {str(key)!r} is unknown.\n{mend}")
