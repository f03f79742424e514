"""Checks of a checkpoint under a plan, with the first rows of a table as a batch where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frostline.anatomy.origin import origin_of
from frostline.evidence.checks.run import check
from frostline.evidence.inspection import open_skeleton
from frostline.freezing.freeze import Freeze
from frostline.training.firstbatch import load_with_batch

if TYPE_CHECKING:
    from torch import nn

    from frostline.anatomy.origin import Origin
    from frostline.evidence.checks.finding import Findings
    from frostline.plan.plan import Plan
    from frostline.training.firstbatch import Rows


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
