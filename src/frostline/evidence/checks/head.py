"""A head that trains in part: what of it stays as it was drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some
from frostline.evidence.optimizers import inner_optimizer
from frostline.plan.rates import usual_rate

_TOO_LOW = 0.1  # of the usual rate, at which 300 steps left a head at the baseline (docs/defaults.md)


def head_partly_trained(case: Case) -> Iterator[Finding]:
    """A part of the head that no checkpoint filled does not train, while the rest of the head does."""
    drawn = left_as_drawn(case)
    if drawn:
        unknown = any(case.origin.of(name) == "unknown" for name in drawn)
        yield case.find(
            "warning",
            drawn,
            cause="A part of the head stays as it was drawn while the rest of it trains: "
            f"{some([f'{name} ({why})' for name, why in drawn.items()])}"
            + ("; no checkpoint is known that filled it." if unknown else "."),
            mend="Let the whole head train: take it away from what is frozen ('~head'), and build the optimizer after "
            "that.",
        )


def left_as_drawn(case: Case) -> dict[str, str]:
    """Per weight of the head that stays at random values while another one trains, why it does not train itself.

    Biases are left out: whatever they are, what trains around them makes up for it. So is what holds one number
    throughout, as a fresh normalisation does.
    """
    head = case.head
    if case.adapters:  # they have a check of their own for the head
        return {}
    still = {name: why for name in head if (why := _why_still(case, name))}
    if len(still) == len(head):
        return {}
    biases = case.anatomy.kinds.get("bias", frozenset())
    return {
        name: why
        for name, why in still.items()
        if name not in biases and case.origin.of(name) != "pretrained" and _varies(case.parameters[name])
    }


def _why_still(case: Case, name: str) -> str:
    parameter = case.parameters[name]
    if not parameter.requires_grad:
        return "frozen"
    if case.optimizer is not None and id(parameter) not in case.held:
        return "not in the optimizer"
    if case.trial is not None and name in case.trial.ran and name not in case.trial.finite:
        return "no gradient"
    return ""


def _varies(values: torch.Tensor) -> bool:
    """Whether a tensor holds several numbers; of one without values it is said by its shape."""
    if values.is_meta:
        return values.dim() > 1
    flat = values.detach().reshape(-1)
    return bool((flat != flat[:1]).any())


def head_rate_low(case: Case) -> Iterator[Finding]:
    """The head trains alone, at a rate at which it hardly leaves where it was drawn."""
    head = set(case.head)
    if case.optimizer is None or not case.trainable or not head.issuperset(case.trainable):
        return
    optimizer = inner_optimizer(case.optimizer)
    if "adam" not in type(optimizer).__name__.lower():  # in others a rate means something else
        return
    rates = [
        float(group.get("initial_lr", group.get("lr", 0.0)))
        for group in optimizer.param_groups
        if case.in_group(group, case.trainable)
    ]
    usual, _ = usual_rate(case.model)
    highest = max(rates, default=0.0)
    drawn = [name for name in case.trainable if case.origin.of(name) != "pretrained"]
    if drawn and 0 < highest <= _TOO_LOW * usual:
        yield case.find(
            "warning",
            drawn,
            cause=f"The head trains alone at a rate of {highest:g}, which suits whole layers: after some hundred steps "
            "it still looks like chance.",
            mend=f"Raise the rate to about {usual:g}; docs/defaults.md has the evidence.",
        )


CHECKS = (head_partly_trained, head_rate_low)
