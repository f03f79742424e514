"""What moved since an earlier fingerprint, against the flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.evidence.checks.case import Check
from frostline.evidence.checks.finding import some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frostline.evidence.checks.case import Case
    from frostline.evidence.checks.finding import Finding


def moved_while_frozen(case: Case) -> Iterator[Finding]:
    """A frozen tensor differs from its earlier self."""
    drifted = case.proof.drifted if case.proof is not None else ()
    if drifted:
        yield case.find(
            "moved-while-frozen",
            "error",
            drifted,
            cause=f"{len(drifted)} frozen tensors changed since the fingerprint was taken: {some(drifted)}.",
            mend="Look at stale-grad, decay-without-grad and tied-conflict; and take the fingerprint after freezing.",
        )


def still_while_trainable(case: Case) -> Iterator[Finding]:
    """Whole units may train, and not one of their tensors moved."""
    if case.proof is None:
        return
    still = {unit.name for unit in case.proof.units if unit.verdict == "unmoved"}
    names = [tensor.name for tensor in case.proof.tensors if tensor.unit in still and tensor.name in case.trainable]
    if names:
        yield case.find(
            "still-while-trainable",
            "warning",
            names,
            cause=f"Nothing moved in what may train: {some(tuple(sorted(still)))}.",
            mend="Look at the optimizer (trainable-not-in-optimizer, zero-lr) and at the gradients (no-gradient).",
        )


CHECKS = (Check("moved-while-frozen", moved_while_frozen), Check("still-while-trainable", still_while_trainable))
