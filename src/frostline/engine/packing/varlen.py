"""Attention within rows of different lengths without padding, by the kernel that torch has for it on CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from frostline.compat.tensors import varlen_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from frostline.engine.token_layout import TokenLayout

Reach = Literal["row", "before"]

_DTYPES = (torch.float16, torch.bfloat16)
_WIDEST_HEAD = 256
# What changes scores in ways that the kernel does not know.
_UNKNOWN = ("position_bias", "softcap", "s_aux", "cache")
_WINDOWS: dict[Reach, tuple[int, int]] = {"row": (-1, -1), "before": (-1, 0)}


def takes(query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any]) -> bool:
    """Whether the kernel can attend for such heads, (1, heads, slots, width) each."""
    return (
        query.is_cuda
        and varlen_kernel() is not None
        and query.dtype in _DTYPES
        and query.dtype == key.dtype == value.dtype
        and query.shape[-1] == key.shape[-1] == value.shape[-1] <= _WIDEST_HEAD
        and query.shape[2] == key.shape[2] == value.shape[2]
        and not options.get("dropout")
        and all(options.get(name) is None for name in _UNKNOWN)
    )


def reach_of(mask: Tensor | None, rows: TokenLayout, *, causal: bool) -> Reach | None:
    """How far each token attends: its whole row, or what comes before it; None for anything else.

    Args:
        mask: As the model made it for the padded batch: True where a token attends, (rows or 1, 1, length, length).
        rows: The layout of the batch.
        causal: Whether no mask means that tokens attend to what comes before them.
    """
    if mask is None:
        return ("before" if causal else "row") if rows.full else None
    if mask.dtype != torch.bool or mask.dim() != 4 or mask.shape[1] != 1:
        return None
    real = rows.mask
    row = (real[:, :, None] & real[:, None, :]).unsqueeze(1)  # (rows, 1, length, length)
    seen = mask & row  # what padding attends to is nobody's concern
    if torch.equal(seen, row):
        return "row"
    return "before" if torch.equal(seen, row.tril()) else None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: TokenLayout,
    reach: Reach,
    scale: float | None,
    kernel: Callable[..., Any] | None = None,
) -> Tensor:
    """Attend within each row.

    Args:
        query: (1, heads, slots, width).
        key: (1, heads or fewer, slots, width).
        value: As `key`.
        rows: The layout of the batch.
        reach: How far each token attends.
        scale: What scores are multiplied by; None for one over the root of the width.
        kernel: Has the signature of ``torch.nn.attention.varlen.varlen_attn``, which it is by default.

    Returns:
        (1, slots, heads, width).
    """
    ends = torch.nn.functional.pad(rows.lengths.cumsum(0), (1, 0)).to(torch.int32)
    heads = (rows.cut(heads.squeeze(0).transpose(0, 1)).contiguous() for heads in (query, key, value))
    longest = rows.length
    attended: Tensor = cast("Callable[..., Tensor]", kernel or varlen_kernel())(
        *heads,
        ends,
        ends,
        longest,
        longest,
        scale=scale,
        window_size=_WINDOWS[reach],
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return rows.fill(attended).unsqueeze(0)
