"""Whether a step is lost to rounding: the same step, taken in double precision on a copy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from frostline.evidence.optimizers import step_of_its_kind
from frostline.evidence.tensor_copy import same_bits


def group_of(optimizer: Any, parameter: torch.Tensor) -> dict[str, Any] | None:
    """The options of the group that holds a parameter, as they are now; None for one that the optimizer has not."""
    for group in optimizer.param_groups if optimizer is not None else ():
        if any(one is parameter for one in group["params"]):
            return {name: value for name, value in group.items() if name != "params"}
    return None


def lost_to_rounding(
    optimizer: Any,
    options: dict[str, Any] | None,
    state: Mapping[str, Any],
    before: torch.Tensor,
    gradient: torch.Tensor | None,
) -> bool:
    """Measure whether the step of an optimizer moves a parameter, but not to another number of its dtype.

    Args:
        optimizer: The optimizer; it stays as it is.
        options: Those of the parameter's group, before the step; None where they are not known.
        state: The optimizer's state of the parameter, before the step.
        before: The parameter's values, before the step.
        gradient: Its gradient, of the same shape; None where there is none.

    Returns:
        True only where that was measured; False too where the step cannot be taken on a copy.
    """
    if options is None or gradient is None or gradient.layout is not torch.strided or not before.is_floating_point():
        return False
    dtype = torch.float32 if before.device.type == "mps" else torch.float64
    wide = torch.nn.Parameter(before.detach().to(dtype, copy=True))
    wide.grad = gradient.detach().to(dtype, copy=True)
    # The plain kernels take any dtype; fused ones may not.
    plain = {name: False for name in ("fused", "foreach") if name in options}
    inner = {name: _copied(value, dtype) for name, value in state.items()}
    options = {name: _copied(value, None) for name, value in options.items()}
    if not step_of_its_kind(optimizer, options | plain, [wide], {wide: inner} if inner else {}):
        return False
    return not torch.equal(wide.detach(), before.detach().to(dtype)) and same_bits(
        wide.detach().to(before.dtype), before
    )


def _copied(value: Any, dtype: torch.dtype | None) -> Any:
    """A copy of one entry of a state; wider where it has a value per element of the parameter."""
    if not isinstance(value, torch.Tensor):
        return copy.deepcopy(value)
    wider = dtype if dtype is not None and value.is_floating_point() and value.dim() else value.dtype
    return value.detach().to(wider, copy=True)
