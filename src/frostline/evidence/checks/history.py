"""What moved since an earlier fingerprint, against the flags."""

from __future__ import annotations

from collections.abc import Iterator

from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some


def moved_while_frozen(case: Case) -> Iterator[Finding]:
    """A tensor that was frozen when the fingerprint was taken, or is frozen now, differs from its earlier self."""
    if case.proof is None:
        return
    late = [tensor.name for tensor in case.proof.tensors if tensor.moved and tensor.name in case.proof.newly_frozen]
    if case.proof.drifted:
        yield case.find(
            "error",
            case.proof.drifted,
            cause=f"{len(case.proof.drifted)} tensors that were frozen when the fingerprint was taken changed since: "
            f"{some(case.proof.drifted)}.",
            mend="Look at stale-grad, decay-without-grad and tied-conflict, and at whether something thaws them.",
        )
    elif late:
        yield case.find(
            "warning",
            late,
            cause=f"{len(late)} tensors that are frozen now changed since the fingerprint was taken, when they were "
            f"not: {some(late)}.",
            mend="Take the fingerprint after freezing, which tells whether they moved before or since.",
        )


def still_while_trainable(case: Case) -> Iterator[Finding]:
    """Whole units may train, and not one of their tensors moved."""
    if case.proof is None:
        return
    units = {unit.name for unit in case.proof.units if unit.verdict == "unmoved"}
    rows = [tensor for tensor in case.proof.tensors if tensor.unit in units and tensor.name in case.trainable]
    names, still = [tensor.name for tensor in rows], {tensor.unit for tensor in rows}
    if names:
        yield case.find(
            "warning",
            names,
            cause=f"Nothing moved in what may train: {some(tuple(sorted(still)))}.",
            mend="Look at the optimizer (trainable-not-in-optimizer, zero-lr) and at the gradients (no-gradient).",
        )


CHECKS = (moved_while_frozen, still_while_trainable)
