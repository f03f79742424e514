"""What moves although nothing asks for it: gradients that linger, and decay without a gradient or with one of 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some
from frostline.evidence.checks.shaken import always_zero
from frostline.evidence.optimizers import inner_optimizer, step_of_its_kind


def stale_grad(case: Case) -> Iterator[Finding]:
    """A frozen parameter keeps a gradient, which an optimizer applies whatever the flag says."""
    names = [name for name in case.frozen if case.parameters[name].grad is not None]
    if not names:
        return
    held = [name for name in names if id(case.parameters[name]) in case.held]
    if held:
        yield case.find(
            "error",
            held,
            cause=f"{len(held)} frozen parameters keep a gradient and are in the optimizer, which goes on moving them "
            f"by gradient, momentum and decay: {some(held)}.",
            mend="Set their .grad to None (zeros would still decay); fl.freeze does so.",
        )
    elif case.optimizer is None:
        yield case.find(
            "note",
            names,
            cause=f"{len(names)} frozen parameters keep a gradient, which an optimizer that holds them would still "
            f"apply: {some(names)}.",
            mend="Set their .grad to None; fl.freeze does so.",
        )


def decay_without_grad(case: Case) -> Iterator[Finding]:
    """The optimizer moves parameters that have no gradient: tried on a tensor of its own."""
    for group in case.groups:
        names = case.in_group(group, case.frozen)
        if names and _moves_unasked(case.optimizer, group, None):
            yield case.find(
                "error",
                names,
                cause=f"{type(case.optimizer).__name__} moves parameters that have no gradient, the frozen ones among "
                f"them: {some(names)}.",
                mend="Give the optimizer only what trains: [p for p in model.parameters() if p.requires_grad].",
            )


def gradient_always_zero(case: Case) -> Iterator[Finding]:
    """A gradient is 0 whatever the batch and the weights are, and the optimizer moves the parameter all the same."""
    if case.trial is None:
        return
    names = set()
    for group in case.groups:
        inside = case.in_group(group, case.trial.zero)
        if inside and _moves_unasked(case.optimizer, group, 0.0):
            names.update(inside)
    if not names:
        return
    units = [[name for name in unit.parameter_names if name in names] for unit in case.units_of(names)]
    found = always_zero(case.model, case.batch, units)
    if found:
        yield case.find(
            "warning",
            found,
            cause=f"{len(found)} trainable parameters get a gradient of 0 throughout, though the outputs depend on "
            f"them, and {type(inner_optimizer(case.optimizer)).__name__} moves them all the same: {some(found)}.",
            mend="Look for hooks that make gradients 0 (register_hook, register_full_backward_hook); to freeze, use "
            "fl.freeze, and build the optimizer after that.",
        )


def _moves_unasked(optimizer: Any, group: dict[str, Any], gradient: float | None) -> bool:
    """Whether one step of the same class, with the same options, changes a tensor with such a gradient throughout."""
    inner = inner_optimizer(optimizer)
    tensors = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    still, moving = tensors
    if gradient is None:
        still.requires_grad_(False)
    else:
        still.grad = torch.full((2, 2), gradient)
    moving.grad = torch.ones(2, 2)
    options = {**group, "lr": torch.tensor(0.1) if isinstance(group.get("lr"), torch.Tensor) else 0.1}
    return step_of_its_kind(inner, options, tensors, {}) and not torch.equal(still, torch.ones(2, 2))


CHECKS = (stale_grad, decay_without_grad, gradient_always_zero)
