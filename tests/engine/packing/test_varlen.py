"""Attention within rows, against attention of each row alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from frostline.engine.packing import varlen
from frostline.engine.token_layout import TokenLayout

_LENGTHS = (5, 2, 4)
_HEADS, _WIDTH = 4, 8


def rows() -> TokenLayout:
    return TokenLayout(torch.arange(max(_LENGTHS)) < torch.tensor(_LENGTHS)[:, None])


def heads(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, rows().slots, _WIDTH, generator=generator)


def row_by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    other_ends: Tensor,
    longest: int,
    other_longest: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """Has the signature of torch's kernel, and runs on any device."""
    assert torch.equal(ends, other_ends)
    assert longest == other_longest == max(_LENGTHS)
    parts = []
    for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        own = [part[begin:end].transpose(0, 1).unsqueeze(0) for part in (query, key, value)]
        attended = torch.nn.functional.scaled_dot_product_attention(
            own[0], own[1], own[2], scale=scale, is_causal=window_size == (-1, 0), enable_gqa=enable_gqa
        )
        parts.append(attended.squeeze(0).transpose(0, 1))
    return torch.cat(parts)


def padded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any) -> Tensor:
    layout = rows()
    own = [layout.pad(layout.cut(part.squeeze(0).transpose(0, 1))).transpose(1, 2) for part in (query, key, value)]
    attended = torch.nn.functional.scaled_dot_product_attention(own[0], own[1], own[2], attn_mask=mask, **options)
    return layout.fill(layout.pack(attended.transpose(1, 2))).unsqueeze(0)


def mask_of(reach: varlen.Reach) -> Tensor:
    real = rows().mask
    mask = real[:, None, None, :].expand(-1, 1, max(_LENGTHS), -1)
    return mask.tril() if reach == "before" else mask


@pytest.mark.parametrize("reach", ["row", "before"])
@pytest.mark.parametrize("key_heads", [_HEADS, 2])
def test_rows_attend_within_themselves(reach: varlen.Reach, key_heads: int) -> None:
    query, key, value = heads(_HEADS, 0), heads(key_heads, 1), heads(key_heads, 2)
    own = varlen.attend(query, key, value, rows(), reach, 0.3, kernel=row_by_row)
    expected = padded(query, key, value, mask_of(reach), scale=0.3, enable_gqa=key_heads != _HEADS)
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("reach", ["row", "before"])
def test_the_reach_is_read_from_the_mask(reach: varlen.Reach) -> None:
    assert varlen.reach_of(mask_of(reach), rows(), causal=False) == reach


def test_a_window_is_no_known_reach() -> None:
    window = mask_of("before") & torch.ones(max(_LENGTHS), max(_LENGTHS), dtype=torch.bool).triu(-1)
    assert varlen.reach_of(window, rows(), causal=True) is None


def test_an_additive_mask_is_no_known_reach() -> None:
    assert varlen.reach_of(mask_of("row").float(), rows(), causal=False) is None


def test_without_a_mask_the_module_decides_and_only_without_padding() -> None:
    full = TokenLayout(torch.ones(2, 3, dtype=torch.bool))
    assert varlen.reach_of(None, full, causal=True) == "before"
    assert varlen.reach_of(None, full, causal=False) == "row"
    assert varlen.reach_of(None, rows(), causal=False) is None


def test_the_cpu_is_left_to_the_padded_way() -> None:
    query = heads(_HEADS, 0).bfloat16()
    assert not varlen.takes(query, query, query, {})
