"""What torch keeps about tensors, their memory and their graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

# Trees of arguments. In: torch 2.2 and newer. No public name has all of them.
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # In: all. What all kinds of BatchNorm are.
from torch.utils._python_dispatch import TorchDispatchMode  # In: all. Told of every operator beneath autograd.
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_structure, tree_unflatten

__all__ = [
    "BatchNorm",
    "TorchDispatchMode",
    "TreeSpec",
    "clear_late_hooks",
    "counts_holders",
    "holders_of",
    "hooks_of",
    "linear_by_onednn",
    "made_by",
    "offset_in_file",
    "saved_by",
    "schema_of",
    "softmax_gradient",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_structure",
    "tree_unflatten",
    "varlen_kernel",
    "version_of",
    "without_memory",
    "without_torch_function",
]


def version_of(tensor: Tensor) -> int:
    """Count how often a tensor was written into; writing through ``.data`` goes unnoticed.

    In: all.
    """
    return tensor._version


def hooks_of(tensor: Tensor) -> tuple[Any, Any]:
    """Give what holds the hooks of a tensor, and those that run once its gradient is there.

    In: all.
    """
    return tensor._backward_hooks, tensor._post_accumulate_grad_hooks


def clear_late_hooks(tensor: Tensor) -> None:
    """Drop the hooks that run once a tensor's gradient is there.

    In: all.
    """
    (tensor._post_accumulate_grad_hooks or {}).clear()


def without_memory(kind: type[Tensor], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    """Make a tensor of a class of one's own that has a shape and no values.

    In: all.
    """
    return torch.Tensor._make_wrapper_subclass(kind, shape, dtype=dtype, device=device)


def without_torch_function() -> AbstractContextManager[None]:
    """Take classes of tensors as plain tensors for a while, down to their operators.

    In: all.
    """
    return torch._C.DisableTorchFunctionSubclass()


def counts_holders() -> bool:
    """Tell whether torch counts the tensors that share one memory.

    In: all that were read (2.6 to 2.13). Lost: gradients of embedding tables in memory that is kept.
    """
    return hasattr(torch._C, "_storage_Use_Count")


def holders_of(tensor: Tensor) -> int:
    """Count the tensors that share the memory of one.

    In: as `counts_holders` tells.
    """
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count


def offset_in_file(tensor: Tensor) -> int | None:
    """Give the place in its file of what a tensor on the meta device stands for; None where torch does not tell.

    In: torch 2.11 and newer. Else: the file is mapped. Lost: a folder of pickled weights is read more slowly.
    """
    offset: int | None = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    return offset


def schema_of(operator: Any) -> Any:
    """Give what an operator of torch says about its arguments; None for what has no schema.

    In: all.
    """
    return getattr(operator, "_schema", None)


def made_by(node: Any) -> Any:
    """Give the ``autograd.Function`` that a node of the graph belongs to; None for torch's own nodes.

    In: all. Lost: one position of the last layer together with products by oneDNN.
    """
    return getattr(node, "_forward_cls", None)


def saved_by(node: Any, name: str, *default: Any) -> Any:
    """Give what a node of the graph of autograd keeps under a name, as torch's derivative formulas call it.

    In: all for the names that are asked for. Lost: the last layer for one position only.

    Raises:
        AttributeError: If it keeps nothing by that name, as in another version, and there is no default.
    """
    return getattr(node, f"_saved_{name}", *default)


def softmax_gradient(gradient: Tensor, weights: Tensor) -> Tensor:
    """Take a gradient back through a softmax over the last axis.

    In: all. Else: the formula, which takes more memory.

    Args:
        gradient: Of the weights, of any shape.
        weights: What the softmax gave, of the same shape.
    """
    if not hasattr(torch, "_softmax_backward_data"):
        return weights * (gradient - (gradient * weights).sum(dim=-1, keepdim=True))
    return torch._softmax_backward_data(gradient, weights, -1, weights.dtype)


@cache
def linear_by_onednn() -> Callable[..., Tensor] | None:
    """Find the linear layer of oneDNN: of values, weight, bias, and the name, scalars and algorithm of what follows.

    In: all, in builds with oneDNN. Lost: matrix products by oneDNN.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None) if available else None


@cache
def varlen_kernel() -> Callable[..., Tensor] | None:
    """Find torch's attention within rows of different lengths, with windows and shared heads.

    In: torch 2.12 and newer (2.10 has one without shared heads). Else: rows are padded in groups of similar length.
    Lost: some speed on CUDA.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    takes = inspect.signature(varlen_attn).parameters
    return (
        cast("Callable[..., Tensor]", varlen_attn) if {"window_size", "enable_gqa", "scale"}.issubset(takes) else None
    )
