"""The rates of a phase, in force while the optimizer steps.

Between steps the optimizer's groups are those that it was made with, and their rates those of the scheduler: so any
scheduler goes on as it would, and checkpoints have the same groups whatever the phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_OWN = ("params", "lr")  # of a group: what it must not take over from a part of itself


class PhaseRates:
    """Puts the rates of a phase in force for one step at a time.

    Attributes:
        highest: The highest rate of the last step, of those that train; None before the first.
    """

    def __init__(self) -> None:
        self.highest: float | None = None
        self._own: list[dict[str, Any]] | None = None
        self._optimizer: Any = None

    def put(self, optimizer: Any, factors: Mapping[nn.Parameter, float], scale: float) -> None:
        """Split the groups of an optimizer by the rates of a phase.

        Args:
            optimizer: The optimizer, without wrappers.
            factors: Per parameter that trains, what the rate of its group is multiplied by.
            scale: What all of them are multiplied by.
        """
        self.take_away()
        self._optimizer, self._own = optimizer, optimizer.param_groups
        parts = [part for group in optimizer.param_groups for part in _parts(group, factors, scale)]
        optimizer.param_groups = parts
        self.highest = max(float(part["lr"]) for part in parts if not factors.keys().isdisjoint(part["params"]))

    def take_away(self) -> None:
        """Give the optimizer its own groups back, with what it noted in their parts; the scheduler's rates stand."""
        if self._own is None:
            return
        parts = {id(parameter): part for part in self._optimizer.param_groups for parameter in part["params"]}
        for group in self._own:
            if group["params"]:
                part = parts[id(group["params"][0])]
                group.update({key: value for key, value in part.items() if key not in _OWN})
        self._optimizer.param_groups, self._own = self._own, None


def _parts(group: dict[str, Any], factors: Mapping[nn.Parameter, float], scale: float) -> list[dict[str, Any]]:
    """A group by the rates of what trains in it; what does not is in the first part, as it is not stepped on."""
    by_factor: dict[float, list[nn.Parameter]] = {}
    rest = []
    for parameter in group["params"]:
        if parameter in factors:
            by_factor.setdefault(factors[parameter], []).append(parameter)
        else:
            rest.append(parameter)
    if not by_factor:
        return [dict(group)]
    first = next(iter(by_factor))
    return [
        {**group, "params": [*parameters, *(rest if factor == first else ())], "lr": group["lr"] * (factor * scale)}
        for factor, parameters in by_factor.items()
    ]
