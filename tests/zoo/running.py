"""What a real forward does: in which order the tensors of a model come into play."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    import frostline as fl


def first_uses(model: nn.Module, anatomy: fl.ModelMap, batch: dict[str, Any]) -> dict[str, int]:
    """Run a forward, and say when each parameter comes into play.

    Args:
        model: The model; put into no other mode.
        anatomy: Its anatomy, for the tied names.
        batch: Keyword arguments of its forward.

    Returns:
        Per parameter name (the first one of a tied tensor), a number that grows with the time of the first call of a
        module that directly holds it under any of its names. Parameters whose modules are never called are left out.
    """
    names = {name: (name,) for name in anatomy.parameter_names} | {group[0]: group for group in anatomy.tied}
    holders = {name.rpartition(".")[0] for group in names.values() for name in group}
    calls: dict[str, int] = {}

    def noting(path: str) -> Any:
        def note(*_: Any) -> None:
            calls.setdefault(path, len(calls))

        return note

    # A module with two names is hooked under both.
    modules = dict(model.named_modules(remove_duplicate=False))
    handles = [modules[path].register_forward_pre_hook(noting(path)) for path in holders]
    try:
        with torch.no_grad():
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    uses = {}
    for first, group in names.items():
        times = [calls[path] for name in group if (path := name.rpartition(".")[0]) in calls]
        if times:
            uses[first] = min(times)
    return uses


def out_of_order(anatomy: fl.ModelMap, uses: dict[str, int]) -> list[str]:
    """Parameters that come into play before one of a lower unit does."""
    latest, wrong = -1, []
    for unit in anatomy.units:
        times = {name: uses[name] for name in unit.parameter_names if name in uses}
        wrong += [name for name, time in times.items() if time < latest]
        latest = max([latest, *times.values()])
    return wrong


def never_run(anatomy: fl.ModelMap, uses: dict[str, int]) -> set[str]:
    """Units with parameters of which none comes into play."""
    return {
        unit.name for unit in anatomy.units if unit.parameter_names and not any(n in uses for n in unit.parameter_names)
    }
