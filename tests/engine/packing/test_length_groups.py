from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from frostline.engine.packing.length_groups import CALL, Groups, can_split, cuts
from frostline.engine.packing.packing import Packing
from frostline.engine.token_layout import TokenLayout

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=24).map(sorted)
HEADS, WIDTH = 4, 8


def _scores(lengths: list[int], bounds: list[int]) -> int:
    return sum((end - begin) * lengths[end - 1] ** 2 for begin, end in pairwise(bounds))


def _rows(lengths: list[int], side: str = "right") -> TokenLayout:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return TokenLayout(mask if side == "right" else mask.flip(1))


@given(LENGTHS, st.integers(0, 10_000))
def test_groups_save_more_than_they_cost(lengths: list[int], call: int) -> None:
    bounds = cuts(lengths, call)
    assert (bounds[0], bounds[-1]) == (0, len(lengths))
    assert bounds == sorted(set(bounds))
    assert _scores(lengths, bounds) + call * (len(bounds) - 2) <= _scores(lengths, [0, len(lengths)])


@pytest.mark.parametrize(
    ("lengths", "bounds"),
    [
        ([7], [0, 1]),
        ([20] * 16, [0, 16]),
        ([30, 31, 31, 32, 32, 33], [0, 6]),  # as in a filling pass, which is sorted by length
        ([10, 20, 305, 306], [0, 2, 4]),
        ([10, 40, 200, 500], [0, 1, 2, 3, 4]),
    ],
)
def test_where_rows_are_cut(lengths: list[int], bounds: list[int]) -> None:
    assert cuts(lengths, CALL / 12) == bounds


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("call", [None, 0.0, 1e9])
def test_packing_is_the_inverse_of_padding(side: str, call: float | None) -> None:
    rows = _rows([3, 9, 3, 5, 9, 1], side)
    packed = torch.arange(1.0, rows.tokens * 2 + 1).reshape(-1, 2).requires_grad_()
    groups = Groups(rows, call)
    padded = groups.pad(packed)
    assert groups.count == len(padded) == (4 if call == 0.0 else 1)
    assert sum(own.shape[0] for own in padded) == rows.count
    assert sum(int((own != 0).any(-1).sum()) for own in padded) == rows.tokens
    assert torch.equal(groups.pack(padded), packed)
    (gradient,) = torch.autograd.grad(groups.pack([own * 3 for own in padded]).sum(), packed)
    assert bool((gradient == 3).all())


def test_a_group_is_as_long_as_its_longest_row() -> None:
    groups = Groups(_rows([3, 9, 3, 5, 9, 1]), 0.0)
    assert [tuple(own.shape) for own in groups.pad(torch.zeros(30, 2))] == [(1, 1, 2), (2, 3, 2), (1, 5, 2), (2, 9, 2)]


class _Attention(nn.Module):
    is_causal = False


def _masks(rows: TokenLayout) -> dict[str, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    keys = rows.mask[:, None, None, :]
    whole = (keys & rows.mask[:, None, :, None]) | torch.eye(rows.length).bool()  # padding attends to itself
    causal = torch.ones(rows.length, rows.length).tril().bool()
    bias = torch.randn(1, HEADS, rows.length, rows.length, generator=generator)
    return {
        "by key": keys,
        "bool": whole,
        "causal": whole & causal,
        "per head": bias + torch.where(keys, 0.0, -1e9),
        "of a head for all rows": torch.where(causal, bias, -1e9),
        "for all rows": causal[None, None],
    }


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["by key", "bool", "causal", "per head", "of a head for all rows", "for all rows"])
def test_attention_in_groups_is_that_of_the_padded_batch(name: str, side: str) -> None:
    rows = _rows([3, 9, 3, 5, 9, 1], side)
    mask = _masks(rows)[name]
    if side == "left" and name in {"of a head for all rows", "for all rows"}:
        mask = mask.flip(2, 3) if mask is not None else None  # only then is padding left out
    generator = torch.Generator().manual_seed(0)
    packed = [torch.randn(rows.tokens, HEADS, WIDTH, generator=generator) for _ in range(3)]
    padded = [rows.pad(own).transpose(1, 2).requires_grad_() for own in packed]
    slots = [rows.fill(own).transpose(0, 1)[None].detach().requires_grad_() for own in packed]
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    plain = attend(_Attention(), *padded, mask, scaling=0.3)[0][rows.mask]
    packing = Packing(rows, "attention")
    with packing.attending():
        own = rows.cut(ALL_ATTENTION_FUNCTIONS["sdpa"](_Attention(), *slots, mask, scaling=0.3)[0][0])
    assert packing.groups(HEADS).count == 4
    torch.testing.assert_close(own, plain, rtol=1e-5, atol=1e-6)
    weights = torch.linspace(0.5, 1.5, plain.numel()).view_as(plain)
    expected = torch.autograd.grad((plain * weights).sum(), padded)
    gradients = torch.autograd.grad((own * weights).sum(), slots)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(
            rows.cut(one[0].transpose(0, 1)), other.transpose(1, 2)[rows.mask], rtol=1e-4, atol=1e-6
        )


def test_no_mask_stays_none_and_causal_is_within_a_row() -> None:
    class Causal(nn.Module):
        is_causal = True

    rows = _rows([2, 6, 4])
    heads = [torch.randn(3, HEADS, 6, WIDTH, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
    slots = [rows.fill(rows.pack(own.transpose(1, 2))).transpose(0, 1)[None] for own in heads]
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"](Causal(), *heads, None)[0][rows.mask]
    with Packing(rows, "attention").attending():
        own = ALL_ATTENTION_FUNCTIONS["sdpa"](Causal(), *slots, None)[0][0]
    torch.testing.assert_close(rows.cut(own), plain, rtol=1e-5, atol=1e-6)


def test_masks_that_say_what_each_position_attends_to() -> None:
    rows = _rows([3, 5])
    assert can_split(None, rows)
    assert all(can_split(torch.ones(shape), rows) for shape in [(2, 1, 5, 5), (1, 4, 5, 5), (2, 1, 1, 5)])
    assert not any(can_split(torch.ones(shape), rows) for shape in [(2, 5), (3, 1, 5, 5), (2, 1, 5, 7), (2, 1, 2, 5)])


def test_what_is_not_of_single_rows_is_padded_as_a_whole() -> None:
    rows = _rows([2, 6, 4])
    widths = []

    def watch(_: nn.Module, query: torch.Tensor, *__: object, **___: object) -> tuple[torch.Tensor, None]:
        widths.append(tuple(query.shape[:3]))
        return query.transpose(1, 2), None

    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    slots = torch.zeros(1, HEADS, rows.slots, WIDTH)
    AttentionInterface.register("sdpa", watch)
    try:
        with torch.no_grad(), Packing(rows, "attention").attending():
            attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
            attend(_Attention(), slots, slots, slots, None, position_bias=torch.zeros(1, HEADS, 6, 6))
            other = torch.zeros(3, HEADS, 7, WIDTH)
            attend(_Attention(), slots, other, other, None, softcap=1.0)
    finally:
        AttentionInterface.register("sdpa", before)
    assert widths == [(3, HEADS, 6)] * 2
