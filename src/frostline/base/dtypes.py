"""Dtypes of torch by their names, and what they can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def dtype_word(dtype: torch.dtype) -> str:
    """The name of a dtype without ``torch.``, such as ``float32``."""
    return str(dtype).removeprefix("torch.")


def can_have_gradient(tensor: torch.Tensor) -> bool:
    """Whether a tensor's values are floats or complex, and no whole numbers."""
    return tensor.is_floating_point() or tensor.is_complex()
