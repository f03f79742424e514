"""Flags that are off where they should be on, and flags that were never set."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some
from frostline.evidence.checks.head import left_as_drawn

_LIKE_THE_FLAG = 0.8  # the similarity that difflib gives "requires_gard" is 0.92, "require_grads" 0.92
_OTHER_WORDS = ("trainable",)  # the flag's name in Keras


def everything_frozen(case: Case) -> Iterator[Finding]:
    """No parameter trains."""
    if case.parameters and not case.trainable:
        yield case.find(
            "error",
            case.parameters,
            cause=f"All {len(case.parameters)} parameters are frozen, so a backward pass fails or changes nothing.",
            mend="Let something train, the head at least: fl.train_only(model, 'head').",
        )


def head_frozen(case: Case) -> Iterator[Finding]:
    """The head is frozen, and something beneath it trains."""
    head = case.head
    if not head or not case.trainable or any(case.parameters[name].requires_grad for name in head):
        return
    if case.adapters:  # they have a check of their own for the head
        return
    from_checkpoint = all(case.origin.of(name) == "pretrained" for name in head)
    yield case.find(
        "note" if from_checkpoint else "warning",
        head,
        cause="The head is frozen while what lies beneath it trains"
        + (", which fits the checkpoint's own task only." if from_checkpoint else "."),
        mend="Take the head away from what is frozen: add the term '~head'.",
    )


def new_but_frozen(case: Case) -> Iterator[Finding]:
    """A parameter that no checkpoint filled does not train."""
    if not case.frozen or not case.trainable:
        return
    told = {name.rpartition(".")[0] for name in left_as_drawn(case)}  # by the check of a head that trains in part
    names = [
        name
        for name in case.frozen
        if case.origin.of(name) == "new"
        and name not in case.adapters
        and name.rpartition(".")[0] not in told
        and ".original_module." not in name
        and not _is_table(case, name)
    ]
    if names:
        yield case.find(
            "warning",
            names,
            cause=f"The checkpoint has no values for {some(names)}: they are freshly initialised and stay random.",
            mend="Let them train, or load a checkpoint that has them.",
        )


def _is_table(case: Case, name: str) -> bool:
    """Whether a parameter is a computed table, which no architecture trains."""
    return "sinusoidal" in type(case.modules[name.rpartition(".")[0]]).__name__.lower()


def no_op_flag(case: Case) -> Iterator[Finding]:
    """Someone wrote a flag where torch does not read it."""
    for path, module in case.modules.items():
        inside = list(module.parameters())
        for key, value in vars(module).items():
            if _is_flag(key, value) and any(parameter.requires_grad != value for parameter in inside):
                yield _no_op(case, path or type(module).__name__, key, [path], value=value)
    for name, parameter in case.parameters.items():
        for key, value in vars(parameter).items():
            if _is_flag(key, value) and parameter.requires_grad != value:
                yield _no_op(case, name, key, [name], value=value)


def _is_flag(key: str, value: object) -> bool:
    """Whether an attribute looks as if it had been meant for ``requires_grad``."""
    if not isinstance(value, bool):
        return False
    return key in _OTHER_WORDS or bool(difflib.get_close_matches(key, ["requires_grad"], cutoff=_LIKE_THE_FLAG))


def _no_op(case: Case, owner: str, key: str, names: list[str], *, value: bool) -> Finding:
    return case.find(
        "error",
        names,
        cause=f"{owner}.{key} = {value} is a plain attribute that torch never reads: the flags inside say otherwise.",
        mend=f"Call requires_grad_({value}) on it, or fl.freeze(model, …).",
    )


CHECKS = (everything_frozen, head_frozen, new_but_frozen, no_op_flag)
