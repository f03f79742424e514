"""Checks of a checkpoint under a plan, with the first rows of a table as a batch where there is one."""

from __future__ import annotations

from typing import Any

from torch import nn

from frostline.anatomy.origin import Origin, origin_of
from frostline.data.messages import counted
from frostline.errors import PlanError
from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Findings, some
from frostline.evidence.checks.flags import new_but_frozen
from frostline.evidence.checks.run import check
from frostline.evidence.inspect.inspection import open_skeleton
from frostline.freezing.freeze import Freeze
from frostline.plan.describe import describe
from frostline.plan.plan import Plan
from frostline.runs.first_batch import Rows, load_with_batch


def check_checkpoint(
    name: str, plan: Plan | None = None, rows: Rows | None = None, *, trust_remote_code: bool = False
) -> Findings:
    """Look for faults in what a plan makes of a checkpoint.

    Args:
        name: A folder or a hub name.
        plan: What is frozen; None to take the model as it stands.
        rows: Training rows that make a batch; None to read only the headers of the weights.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        FrostlineError: If the model, the plan or the data cannot be used.
    """
    batch: Any = None
    model: nn.Module
    origin: Origin
    if rows is None:
        model, origin = open_skeleton(name, trust_remote_code=trust_remote_code)
    else:
        model, batch = load_with_batch(name, rows, seed=0, trust_remote_code=trust_remote_code)
        origin = origin_of(model)
    if plan is not None:
        Freeze(model, plan)
    return check(model, batch=batch, origin=origin)


def refuse_new_frozen(model: nn.Module, plan: Plan, origin: Origin) -> None:
    """Look whether a plan that is in force freezes what no checkpoint filled.

    Args:
        model: The model, frozen.
        plan: The plan.
        origin: Where the model's parameters come from.

    Raises:
        PlanError: If it does; the message says what else to freeze.
    """
    case = Case(model, known_origin=origin)
    for finding in new_but_frozen(case):
        rest = describe(case.anatomy, set(case.frozen).difference(finding.names))
        mend = f"Freeze what it has ('{rest}')" if rest else "Let them train, name a checkpoint that has them"
        raise PlanError(
            f"'{origin.source}' lacks {counted(len(finding.names), 'tensor')} that the plan '{plan}' freezes "
            f"({some(finding.names)}): they would stay random.\n{mend}, or pass --allow-new-frozen."
        )
