"""What an optimizer holds, against what the model trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some
from frostline.evidence.optimizers import inner_optimizer


def trainable_not_in_optimizer(case: Case) -> Iterator[Finding]:
    """A parameter asks for a gradient, and no optimizer applies it."""
    if case.optimizer is None:
        return
    names = [name for name in case.trainable if id(case.parameters[name]) not in case.held]
    if names:
        yield case.find(
            "warning",
            names,
            cause=f"{len(names)} trainable parameters are not in the optimizer and will never move: {some(names)}.",
            mend="Build the optimizer after freezing and thawing, over all that trains; or freeze them.",
        )


def optimizer_holds_strangers(case: Case) -> Iterator[Finding]:
    """The optimizer holds tensors that are not the model's."""
    own = {id(parameter) for parameter in case.parameters.values()}
    strangers = [parameter for group in case.groups for parameter in group["params"] if id(parameter) not in own]
    if strangers:
        complete = all(id(case.parameters[name]) in case.held for name in case.trainable)
        shapes = [str(tuple(parameter.shape)) for parameter in strangers]
        yield case.find(
            "warning" if complete and case.trainable else "error",
            [],
            cause=f"The optimizer holds {len(strangers)} tensors the model does not have, of shape {some(shapes)}: "
            "it was built before the model was resized, reloaded, cast or wrapped.",
            mend="Build the optimizer again, from the model as it is now.",
        )


def duplicate_in_optimizer(case: Case) -> Iterator[Finding]:
    """One tensor is in the optimizer more than once."""
    counts = Counter(id(parameter) for group in case.groups for parameter in group["params"])
    names = [name for name, parameter in case.parameters.items() if counts[id(parameter)] > 1]
    if names:
        yield case.find(
            "error",
            names,
            cause=f"The optimizer holds {some(names)} more than once, and moves it as often in every step.",
            mend="Give each parameter once: named_parameters() of the whole model lists tied weights only once.",
        )


def frozen_again(case: Case) -> Iterator[Finding]:
    """The optimizer has stepped on parameters that are frozen now."""
    state = getattr(inner_optimizer(case.optimizer), "state", {})
    names = [name for name in case.frozen if state.get(case.parameters[name])]
    if names:
        yield case.find(
            "note",
            names,
            cause=f"{len(names)} frozen parameters have been trained by this optimizer, which keeps state of them: "
            f"{some(names)}. So it is where a run is resumed as it began, with what had thawed frozen again.",
            mend="Thaw them before you go on, unless they were frozen on purpose; a schedule of Frostline resumes in "
            "the phase that it was in.",
        )


def zero_lr(case: Case) -> Iterator[Finding]:
    """A group that holds what trains has a learning rate of zero, and no schedule that would raise it."""
    for number, group in enumerate(case.groups):
        names = case.in_group(group, case.trainable)
        if names and _rate(group) == 0 and not float(group.get("initial_lr", 0)):
            yield case.find(
                "warning",
                names,
                cause=f"Group {number} of the optimizer has a learning rate of 0: {some(names)} will not move.",
                mend="Give the group a learning rate, or freeze what it holds and save the time.",
            )


def _rate(group: dict[str, Any]) -> float | None:
    rate = group.get("lr")
    return None if rate is None else float(rate)


CHECKS = (trainable_not_in_optimizer, optimizer_holds_strangers, duplicate_in_optimizer, frozen_again, zero_lr)
