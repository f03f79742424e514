"""What follows from an estimate, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.engine.cost.costs import bytes_text
from frostline.engine.cost.units import frost_line_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frostline.engine.cost.estimate import Cost
    from frostline.engine.cost.machines import Machine
    from frostline.engine.cost.units import UnitCost
    from frostline.plan.plan import FrozenMode

_PLACES = {"nowhere": "nowhere", "memory": "in memory", "disk": "on disk"}


def remarks_on(
    units: Sequence[UnitCost], plan: Cost, everything: Cost, mode: FrozenMode, machine: Machine | None, free: int
) -> Iterator[str]:
    """What follows for a plan, in sentences.

    Args:
        units: Of the model, frozen as the plan says.
        plan: What the plan costs.
        everything: What training everything costs.
        mode: How frozen modules behave.
        machine: The machine that it is for, where it is one by name.
        free: Bytes of free memory on this one.
    """
    line = frost_line_of(units) or 0
    crossed = [unit.name for unit in units[line:] if unit.parameters and not unit.trains]
    if all(unit.trained_share == 1 and unit.trains for unit in units if unit.parameters):
        yield "Nothing is frozen, so nothing is saved."
    else:
        yield saving_text(plan, everything)
    if crossed:
        names = crossed[0] if len(crossed) == 1 else f"{crossed[0]} to {crossed[-1]}"
        yield (
            f"Freezing {names} above {units[line].name}, which trains, makes nothing that the store could keep: the "
            "backward pass still crosses what is frozen there. It spares gradients of weights and optimizer state only."
        )
    if plan.choice is None and any(unit.parameters and not unit.trains for unit in units[:line]):
        yield f"Frozen modules are in {mode} mode, so what they give differs each time and cannot be stored."
    elif plan.choice is None:
        yield "Nothing is frozen beneath all that trains, so there is nothing to store."
    elif not plan.choice.alternatives:
        yield f"Activations are not kept: {plan.choice.why}."
    elif plan.choice.break_even is not None:
        yield (
            f"Activations are kept {_PLACES[plan.where]}: {plan.choice.why}. Storing breaks even after "
            f"{plan.choice.break_even:.1f} epochs."
        )
    else:
        yield f"Activations are kept {_PLACES[plan.where]}: {plan.choice.why}. Storing never breaks even."
    memory = machine.memory if machine is not None else free
    host = plan.memory.store if machine is not None else 0  # the store lies in the memory of the machine's host
    if plan.memory.peak - host > memory:
        whose = f"{machine.name} has" if machine is not None else "are free here"
        size = bytes_text(memory)
        told = f"{whose} {size}" if machine is not None else f"{size} {whose}"
        yield f"It does not fit: {bytes_text(plan.memory.peak - host)} are needed at the peak, and {told}."


def saving_text(plan: Cost, everything: Cost) -> str:
    """How much a plan saves beside training everything."""
    times = everything.times.total / plan.times.total
    share = plan.memory.peak / everything.memory.peak
    faster = f"{times:.1f} times as fast as" if times >= 1.05 else f"no faster than ({times:.2f} times)"
    return f"This is {faster} training everything, with {share:.0%} of its memory."
