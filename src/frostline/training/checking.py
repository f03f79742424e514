"""Checks of a checkpoint under a plan, with the first rows of a table as a batch where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frostline.anatomy.origin import origin_of
from frostline.evidence.checks.run import check
from frostline.evidence.inspection import open_skeleton
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.training.firstbatch import Rows, load_with_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from frostline.anatomy.origin import Origin
    from frostline.evidence.checks.finding import Findings
    from frostline.plan.plan import FrozenMode

ROWS = 8  # of the batch


def check_checkpoint(
    name: str,
    data: str | None = None,
    *,
    freeze: str | None = None,
    train_only: str | None = None,
    frozen_mode: FrozenMode = "eval",
    text_columns: Sequence[str] = ("text",),
    label_columns: Sequence[str] = ("label",),
    trust_remote_code: bool = False,
) -> Findings:
    """Look for faults in what a plan makes of a checkpoint.

    Args:
        name: A folder or a hub name.
        data: Training rows, whose first ones make a batch; None to read only the headers of the weights.
        freeze: What is frozen, as a selector.
        train_only: What trains, as a selector; not together with `freeze`.
        frozen_mode: ``"eval"`` or ``"train"``.
        text_columns: One column, or two for pairs of texts.
        label_columns: One column, or several.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        FrostlineError: If the model, the plan or the data cannot be used.
    """
    plan = Plan(freeze, train_only, frozen_mode) if freeze is not None or train_only is not None else None
    batch: Any = None
    model: nn.Module
    origin: Origin
    if data is None:
        model, origin = open_skeleton(name, trust_remote_code=trust_remote_code)
    else:
        rows = Rows(data=data, count=ROWS, text_columns=tuple(text_columns), label_columns=tuple(label_columns))
        model, batch = load_with_batch(name, rows, seed=0, trust_remote_code=trust_remote_code)
        origin = origin_of(model)
    if plan is not None:
        Freeze(model, plan)
    return check(model, batch=batch, origin=origin)
