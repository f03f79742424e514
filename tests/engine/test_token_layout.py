from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from frostline.engine.token_layout import TokenLayout

# Right padding, left padding, holes, and rows without a token.
MASKS = st.integers(1, 4).flatmap(
    lambda length: st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=4)
)


def _rows(mask: list[list[bool]]) -> TokenLayout:
    return TokenLayout(torch.tensor(mask))


@given(MASKS)
def test_packing_and_padding_are_each_others_inverse(mask: list[list[bool]]) -> None:
    rows = _rows(mask)
    padded = torch.arange(1.0, rows.mask.numel() * 2 + 1).reshape(*rows.mask.shape, 2)
    packed = rows.pack(padded)
    expected = [padded[row, place] for row, own in enumerate(mask) for place, real in enumerate(own) if real]
    assert packed.tolist() == [value.tolist() for value in expected]
    assert torch.equal(rows.pad(packed), padded * rows.mask[..., None])


@given(MASKS)
def test_the_layout_is_counted_right(mask: list[list[bool]]) -> None:
    rows = _rows(mask)
    assert (rows.count, rows.length) == (len(mask), len(mask[0]))
    assert rows.lengths.tolist() == [sum(own) for own in mask]
    assert rows.tokens == sum(map(sum, mask))
    assert rows.full == all(map(all, mask))
    flat = [real for own in mask for real in own]
    assert rows.places.tolist() == [place for place, real in enumerate(flat) if real]


@given(MASKS)
def test_spare_slots_hold_the_last_token_and_get_no_gradient(mask: list[list[bool]]) -> None:
    rows = _rows(mask)
    packed = torch.arange(1.0, rows.tokens * 2 + 1).reshape(-1, 2).requires_grad_()
    filled = rows.fill(packed)
    assert len(filled) == rows.slots >= rows.tokens
    assert rows.slots % 16 == 0
    assert torch.equal(rows.cut(filled), packed)
    assert torch.equal(filled[rows.tokens :], packed[-1:].expand(rows.slots - rows.tokens, 2))
    (gradient,) = torch.autograd.grad(filled.sum(), packed)
    assert bool((gradient == 1).all())


def test_one_padded_row_does_not_look_packed() -> None:
    assert _rows([[True] * 16]).slots == 16
    assert _rows([[True] * 10 + [False] * 6]).slots == 32


def test_numbers_of_slots_recur() -> None:
    slots = {tokens: _rows([[True] * tokens]).slots for tokens in range(1, 2049)}
    assert all(found >= tokens for tokens, found in slots.items())
    assert len({slots[tokens] for tokens in range(1025, 2049)}) == 8
    assert max(found / tokens for tokens, found in slots.items() if tokens > 128) < 1.125
    assert slots[1] == 16


@given(MASKS)
def test_gradients_are_those_of_indexing(mask: list[list[bool]]) -> None:
    rows = _rows(mask)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, 2, generator=generator, dtype=torch.float64, requires_grad=True)

    def gradient(own: Any, value: torch.Tensor) -> torch.Tensor:
        output = own(value)
        weights = torch.linspace(1, 2, output.numel(), dtype=torch.float64).reshape(output.shape)
        return torch.autograd.grad((output * weights).sum(), value)[0]

    padded, packed = draw(*rows.mask.shape), draw(rows.tokens)
    assert torch.equal(gradient(rows.pack, padded), gradient(lambda value: value[rows.mask], padded))

    def place(value: torch.Tensor) -> torch.Tensor:
        return value.new_zeros(*rows.mask.shape, 2).index_put((rows.mask,), value)

    assert torch.equal(gradient(rows.pad, packed), gradient(place, packed))


def test_gradients_by_finite_differences() -> None:
    rows = _rows([[True, False, True], [False, True, True]])
    packed = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    padded = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(rows.pad, (packed,))
    assert torch.autograd.gradcheck(rows.pack, (padded,))
    assert torch.autograd.gradcheck(lambda value: rows.pack(rows.pad(value)), (packed,))
