"""What stands behind the mask in outputs with one value per token: nobody may read it, as it is not computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from frostline.compat.tensors import tree_map

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


def guarded(output: Any, mask: Tensor) -> Any:
    """Have a backward pass end with `PaddingRead`, before it reaches the model, if the loss reads padding.

    Args:
        output: What a forward gave out.
        mask: Which positions hold real tokens, bool, (rows, length).
    """

    def guard(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad and leaf.shape[:2] == mask.shape:
            return _RealOnly.apply(leaf, mask)  # type: ignore[no-untyped-call]
        return leaf

    return tree_map(guard, output)


class _RealOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        if bool(gradients[0][~mask].any()):
            raise PaddingRead("the loss reads what stands behind the mask")
        return gradients[0], None
