"""Activation checkpointing over frozen inputs, and the switch that works around it."""

from __future__ import annotations

from collections.abc import Iterator

from frostline.anatomy.wrappers import unwrap
from frostline.compat.models import gives_gradients_to_inputs
from frostline.compat.modules import is_checkpointed_reentrantly
from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some


def checkpointing_cuts_grad(case: Case) -> Iterator[Finding]:
    """Reentrant checkpoints get inputs that require no gradient, and so give none to what is inside them."""
    inside = _in_checkpoints(case)
    if case.trial is not None:
        if not case.trial.cut:
            return
        names = [name for name in case.trainable if name not in case.trial.finite and name in case.trial.ran]
        lost = [name for name in names if name in inside] or names
    else:
        lost = [name for name in case.trainable if name in inside]
        if not lost or _inputs_require_grad(case) or _trains_beneath(case, inside):
            return
    if lost:
        yield case.find(
            "error",
            lost,
            cause="A reentrant checkpoint gives no gradient to what is inside it when its input requires none, and all "
            f"beneath it is frozen: {some(lost)}.",
            mend="Checkpoint with use_reentrant=False, or call model.enable_input_require_grads().",
        )


def input_grads_are_not_thawing(case: Case) -> Iterator[Finding]:
    """The outputs of frozen embeddings are made to require a gradient."""
    if not _inputs_require_grad(case):
        return
    embeddings = [name for unit in case.anatomy.units if unit.kind == "embeddings" for name in unit.parameter_names]
    frozen = [name for name in embeddings if name in case.frozen]
    if frozen and len(frozen) == len(embeddings):
        yield case.find(
            "note",
            frozen,
            cause="enable_input_require_grads() makes the outputs of the embeddings require a gradient, not their "
            "weights: they stay frozen, but the backward pass goes through the whole frozen prefix.",
            mend="Checkpoint with use_reentrant=False, then call model.disable_input_require_grads().",
        )


def _in_checkpoints(case: Case) -> frozenset[str]:
    """Names of the parameters inside modules that transformers runs in reentrant checkpoints."""
    names = {id(parameter): name for name, parameter in case.parameters.items()}
    layers = {
        id(case.model.get_submodule(path)) for stack in case.anatomy.stacks for layer in stack.layers for path in layer
    }
    found: set[str] = set()
    for module in case.model.modules():
        checkpointed = id(module) in layers and getattr(module, "gradient_checkpointing", False)
        if checkpointed and is_checkpointed_reentrantly(module):
            found |= {names[id(parameter)] for parameter in module.parameters()}
    return frozenset(found)


def _inputs_require_grad(case: Case) -> bool:
    return gives_gradients_to_inputs(unwrap(case.model).core)


def _trains_beneath(case: Case, inside: frozenset[str]) -> bool:
    """Whether something trains beneath the first checkpoint."""
    for unit in case.anatomy.units:
        if inside.intersection(unit.parameter_names):
            return False
        if any(case.parameters[name].requires_grad for name in unit.parameter_names):
            return True
    return False


CHECKS = (checkpointing_cuts_grad, input_grads_are_not_thawing)
