"""Frozen modules that still behave as in training: dropout, and statistics that move."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some
from frostline.freezing.mode import frozen_modules, is_pinned


def dropout_in_frozen(case: Case) -> Iterator[Finding]:
    """Dropout is on in frozen modules: plain torch does so, hence a note."""
    names = [path for path, module in _lively(case).items() if _drops(module)]
    if names:
        yield case.find(
            "note",
            names,
            cause=f"Dropout is on in frozen modules ({some(names)}), so that they give another output each time.",
            mend="Freeze with fl.freeze, which keeps frozen modules in eval mode, or call eval() on them each time "
            "after model.train().",
        )


def norm_stats_in_frozen(case: Case) -> Iterator[Finding]:
    """Running statistics move in frozen modules."""
    names = [
        path
        for path, module in _lively(case).items()
        if getattr(module, "track_running_stats", False) and getattr(module, "running_mean", None) is not None
    ]
    if names:
        yield case.find(
            "warning",
            names,
            cause=f"Every batch moves the running statistics of frozen normalisations: {some(names)}.",
            mend="Freeze with fl.freeze, which keeps frozen modules in eval mode, or call eval() on them each time "
            "after model.train().",
        )


def _lively(case: Case) -> dict[str, nn.Module]:
    """Frozen modules, by path, that are in train mode or will be once ``model.train()`` is called."""
    if not case.trainable:
        return {}
    frozen = {id(module) for module in frozen_modules(case.model) if not is_pinned(module)}
    asleep = not case.model.training
    return {
        path: module for path, module in case.modules.items() if id(module) in frozen and (module.training or asleep)
    }


def _drops(module: nn.Module) -> bool:
    """Whether a module drops activations: its class says so, or it holds a rate for the functional form."""
    if "dropout" in type(module).__name__.lower():
        return any(_is_rate(getattr(module, name, None)) for name in ("p", "drop_prob", "dropout"))
    return any("dropout" in name and _is_rate(value) for name, value in vars(module).items())


def _is_rate(value: object) -> bool:
    return isinstance(value, float) and value > 0


CHECKS = (dropout_in_frozen, norm_stats_in_frozen)
