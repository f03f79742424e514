"""What stands behind the mask in outputs with one value per token: nobody may read it, as it is not computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from frostline.compat.tensors import tree_map
from frostline.engine.late_logits import LateLogits, with_states

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class PaddingRead(Exception):  # noqa: N818 - it takes a step back, and is no error
    """A loss depends on what stands behind the mask."""


def watched(output: Any, mask: Tensor, tell: Callable[[bool], None]) -> Any:
    """Have a backward pass tell whether the loss reads padding.

    Args:
        output: What the plain forward gave out.
        mask: Which positions hold real tokens, bool, (rows, length).
        tell: Is told for each output with one value per token that the loss depends on.
    """

    def look(gradient: Tensor) -> None:
        tell(bool(gradient[~mask].any()))

    def watch(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad and leaf.shape[:2] == mask.shape:
            leaf.register_hook(look)  # type: ignore[no-untyped-call]
        return leaf

    return tree_map(watch, output)


def guarded(output: Any, mask: Tensor, mend: str = "") -> Any:
    """Have a backward pass end with `PaddingRead`, before it reaches the model, if the loss reads padding.

    Args:
        output: What a forward gave out.
        mask: Which positions hold real tokens, bool, (rows, length).
        mend: What to do where nobody takes the step again.
    """

    def guard(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad and leaf.shape[:2] == mask.shape:
            return with_states(leaf, real_only) if isinstance(leaf, LateLogits) else real_only(leaf)
        return leaf

    def real_only(values: Tensor) -> Tensor:
        guarded: Tensor = _RealOnly.apply(values, mask, mend)  # type: ignore[no-untyped-call]
        return guarded

    return tree_map(guard, output)


class _RealOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor, mend: str) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.mend = mend
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        if bool(gradients[0][~mask].any()):
            raise PaddingRead(f"the loss reads what stands behind the mask{ctx.mend}")
        return gradients[0], None, None
