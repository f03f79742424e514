"""What a sweep is asked to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from frostline.base.json import picked
from frostline.errors import SettingsError
from frostline.plan.presets import PRESETS
from frostline.runs.train_settings import TrainSettings, require_number

_UNITS = {"s": 1, "m": 60, "h": 3600}
_WITHIN = re.compile(r"fastest-within\s+(\d+(?:\.\d+)?)\s*pt")


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSettings:
    """What a sweep is asked to do.

    Attributes:
        run: What all runs have in common; it freezes nothing, and names no learning rate.
        depths: Numbers of frozen layers that are compared; None for all depths.
        bands: Whether single bands of layers are compared as well.
        presets: Names of schedules that are compared as well.
        rates: The learning rates to choose from at each depth; None for the usual one and its third and threefold.
        seeds: How often each depth is trained.
        budget: Seconds that the sweep should take; None for as long as it takes.
        pick: Which row is trained and saved: ``"best"``, ``"fastest-within 1pt"``; None for none.
        report_to: Names of the trackers that get a run per row and seed.
        ray: The address of the Ray cluster that makes the runs; None to make them here.

    Raises:
        SettingsError: If one is none, or does not go with the others.
    """

    run: TrainSettings
    depths: tuple[int, ...] | None = None
    bands: bool = False
    presets: tuple[str, ...] = ()
    rates: tuple[float, ...] | None = None
    seeds: int = 3
    budget: float | None = None
    pick: str | None = None
    report_to: tuple[str, ...] = ()
    ray: str | None = None

    def __post_init__(self) -> None:
        require_number("seeds", self.seeds, least=1, most=1000)
        for rate in self.rates or ():
            require_number("learning_rate", rate)
        if self.rates == ():
            raise SettingsError("--lr names nothing.\nName rates, such as 1e-4,3e-4, or leave it out.")
        for name in self.presets:
            if name not in PRESETS:
                raise SettingsError(f"--presets names {name!r}.\nThere are {', '.join(PRESETS)}.")
        if self.run.eval_data is None:
            raise SettingsError("A sweep needs evaluation data to compare by.\nName it with --eval.")
        if self.run.adapts or self.run.plan() is not None or self.run.learning_rate is not None:
            raise SettingsError("A sweep tries what to freeze, and how fast to learn; both are for it to choose.")
        if self.pick is not None and self.pick != "best" and not _WITHIN.fullmatch(self.pick):
            raise SettingsError(f"--pick is {self.pick!r}.\nGive 'best', or 'fastest-within 1pt'.")

    @property
    def within(self) -> float | None:
        """Of a pick, the points of accuracy that may be lost, from 0 to 100; None for the best."""
        found = _WITHIN.fullmatch(self.pick or "")
        return float(found[1]) if found is not None else None

    def to_dict(self) -> dict[str, Any]:
        """What decides on the rows, as plain values."""
        return self.run.to_dict() | picked(self, "depths", "bands", "presets", "rates", "seeds", "budget")


def seconds_of(text: str) -> float:
    """Read a length of time: ``90s``, ``30m``, ``1.5h``.

    Raises:
        SettingsError: If it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text)
    if found is None or not float(found[1]):
        raise SettingsError(f"--budget is {text!r}, which is no length of time.\nWrite it as 90s, 30m or 1.5h.")
    return float(found[1]) * _UNITS[found[2]]
