"""Kinds of parameters that cut across the units: biases, normalisations, adapters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from frostline.anatomy.wrappers import adapter_parts
from frostline.base.modules import beginnings

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["bias", "norms", "adapters"]

_BIAS = re.compile(r"bias|bias_.*|.*_bias")


def kinds_of(model: nn.Module) -> dict[Kind, frozenset[str]]:
    """Find the parameters of each kind.

    Args:
        model: The outermost module.

    Returns:
        Names as ``named_parameters()`` prints them. ``bias``: told by the name. ``norms``: the parameters of a
        normalisation, told by its class, since each architecture brings its own. ``adapters``: what PEFT added.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    parts = frozenset(adapter_parts(model))
    found: dict[Kind, set[str]] = {"bias": set(), "norms": set(), "adapters": set()}
    for name, _ in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if _BIAS.fullmatch(leaf):
            found["bias"].add(name)
        if "norm" in type(modules[owner]).__name__.lower():
            found["norms"].add(name)
        if not parts.isdisjoint(beginnings(name)):
            found["adapters"].add(name)
    return {kind: frozenset(names) for kind, names in found.items()}
