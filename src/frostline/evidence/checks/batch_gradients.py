"""What a real batch's gradients say."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some


def no_gradient(case: Case) -> Iterator[Finding]:
    """A parameter that is to train gets no gradient from the batch."""
    if case.trial is None or not case.trainable:
        return
    missing = [name for name in case.trainable if name not in case.trial.finite]
    if len(missing) == len(case.trainable):
        yield case.find(
            "error",
            missing,
            cause="The batch gives no gradient to anything: the loss does not depend on what trains.",
            mend="Look for a detach, no_grad or inference_mode on the way from what trains to the loss, and for "
            "checkpointing over frozen inputs.",
        )
        return
    # What runs in vain is used by its module for something else, or its output is thrown away; a whole unit
    # of the chain in vain is a break in the graph.
    broken = [
        name
        for unit in case.units_of(missing)
        if unit.kind in {"embeddings", "layer", "head"}
        for name in unit.parameter_names
        if name in missing
        and not any(other in case.trial.finite for other in unit.parameter_names)
        and name in case.trial.ran
    ]
    idle = [name for name in missing if name not in broken]
    if broken:
        yield case.find(
            "warning",
            broken,
            cause=f"{len(broken)} trainable parameters run in the forward, but the batch gives them no gradient: "
            f"{some(broken)}.",
            mend="Look for a detach or no_grad around them, or layers that need inputs with gradient; or freeze them.",
        )
    if idle:
        yield case.find(
            "note",
            idle,
            cause=f"{len(idle)} trainable parameters have no part in the loss of this batch: {some(idle)}.",
            mend="Nothing is wrong where the task has no use for them; freezing them says so.",
        )


def non_finite_grad(case: Case) -> Iterator[Finding]:
    """A gradient or the loss is not a finite number."""
    if case.trial is not None:
        names = [name for name, finite in case.trial.finite.items() if not finite]
        source = "The batch gives"
    else:
        names = [
            name
            for name, parameter in case.parameters.items()
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        ]
        source = "The model holds"
    if names:
        yield case.find(
            "error",
            names,
            cause=f"{source} gradients that are not finite to {len(names)} parameters, and a step would make them so: "
            f"{some(names)}.",
            mend="Look for empty rows, labels out of range and fp16 overflow; lower the learning rate or use bf16.",
        )
    elif case.trial is not None and not isfinite(case.trial.loss):
        yield case.find(
            "error",
            [],
            cause=f"The loss of the batch is {case.trial.loss}.",
            mend="Look for empty rows, labels out of range and fp16 overflow.",
        )


CHECKS = (no_gradient, non_finite_grad)
