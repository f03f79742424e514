"""Attention with dropout against torch's own, and against its formula."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from frostline.engine.packing.attention import in_parts, kept, split_rows

if TYPE_CHECKING:
    from torch import Tensor

ROWS, HEADS, LENGTH, WIDTH = 3, 2, 5, 4
MODULE: Any = SimpleNamespace(is_causal=False)
REAL = torch.arange(LENGTH) < torch.tensor([5, 3, 1]).unsqueeze(1)  # (rows, length)
MASKS = {
    "none": None,
    "rows": REAL[:, None, None],
    "added": torch.zeros(ROWS, 1, LENGTH, LENGTH).masked_fill(~REAL[:, None, None], -torch.inf),
    "causal": REAL[:, None, None] & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(),
}


def heads(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, ROWS, HEADS, LENGTH, WIDTH, generator=generator).to(dtype)
    query, key, value = (own.clone().requires_grad_() for own in drawn)
    return query, key, value


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("it was called")


def own(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
    output, _ = in_parts(never, always=True)(MODULE, query, key, value, mask, **options)
    return cast("Tensor", output).transpose(1, 2)


def differs(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((mine - its).detach().abs().max()) for mine, its in zip(one, other, strict=True))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_without_dropout_it_is_torchs_attention(
    mask: Tensor | None, scaling: float | None, dtype: torch.dtype, most: float
) -> None:
    inputs = heads(dtype)
    mask = mask.to(dtype) if mask is not None and mask.is_floating_point() else mask
    plain = torch.nn.functional.scaled_dot_product_attention(*inputs, mask, scale=scaling)
    mine = own(*inputs, mask, scaling=scaling)
    weights = torch.linspace(-1, 1, plain.numel()).view(plain.shape).to(dtype)
    by_plain = torch.autograd.grad((plain * weights).sum(), inputs)
    by_mine = torch.autograd.grad((mine * weights).sum(), inputs)
    assert mine.dtype == dtype
    assert differs([mine, *by_mine], [plain, *by_plain]) <= most


def test_in_parts_it_is_the_formula() -> None:
    inputs = query, key, value = heads(torch.float64)
    torch.manual_seed(1)
    mine = own(*inputs, MASKS["rows"], dropout=0.25)
    scores = (query @ key.transpose(-1, -2) / WIDTH**0.5).masked_fill(~REAL[:, None, None], -torch.inf)
    weights = scores.softmax(dim=-1)
    torch.manual_seed(1)
    keeps, gain = kept(weights.shape, 0.25)
    plain = (weights * keeps * gain) @ value
    by_mine, by_plain = (torch.autograd.grad(found.square().sum(), inputs) for found in (mine, plain))
    assert differs([mine, *by_mine], [plain, *by_plain]) <= 1e-12


def test_a_position_that_attends_to_nothing_spoils_no_other() -> None:
    inputs = heads()
    mask = REAL[:, None, :, None] & REAL[:, None, None]
    gradients = torch.autograd.grad(own(*inputs, mask, dropout=0.1)[0].sum(), inputs)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_values_are_dropped_with_their_probability_and_keep_their_mean(dropout: float) -> None:
    torch.manual_seed(0)
    keeps, gain = kept((1001, 1003), dropout)
    factors = keeps * gain
    spread = (dropout * (1 - dropout) / factors.numel()) ** 0.5
    assert abs(float((factors == 0).double().mean()) - dropout) < 5 * spread + 1 / 65536
    assert sorted(set(factors.flatten().tolist())) == pytest.approx([0, 1 / (1 - dropout)], rel=1e-3)
    # Neighbours are cut from one number, and know nothing of each other.
    gone = (factors == 0).double().flatten()
    assert abs(float((gone[1:] * gone[:-1]).mean()) - dropout**2) < 5 * (dropout**2 / factors.numel()) ** 0.5


@pytest.mark.parametrize("scores", [1, LENGTH * LENGTH, 2 * HEADS * LENGTH * LENGTH])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("grown", [False, True])
def test_parts_make_no_difference(
    mask: Tensor | None, scores: int, monkeypatch: pytest.MonkeyPatch, *, grown: bool
) -> None:
    inputs = heads(torch.float64)
    mask = mask.double() if mask is not None and mask.is_floating_point() else mask
    mask = mask.expand(ROWS, HEADS, LENGTH, LENGTH) if mask is not None and grown else mask
    whole = own(*inputs, mask)
    monkeypatch.setattr("frostline.engine.packing.attention._SCORES", scores)
    parts = own(*inputs, mask)
    by_whole, by_parts = (torch.autograd.grad(found.square().sum(), inputs) for found in (whole, parts))
    assert differs([whole, *by_whole], [parts, *by_parts]) <= 1e-12
    assert len(list(split_rows(*inputs[:2]))) == {1: ROWS * HEADS, 25: ROWS * HEADS, 100: 2}[scores]


@pytest.mark.parametrize(("length", "dropout", "is_taken"), [(48, 0.0, True), (49, 0.0, False), (49, 0.1, True)])
def test_without_gradients_short_texts_and_dropout_are_taken(length: int, dropout: float, *, is_taken: bool) -> None:
    query = torch.zeros(1, 1, length, WIDTH)
    attend = in_parts(lambda *_, **__: None, always=False)
    with torch.no_grad():
        assert (attend(MODULE, query, query, query, None, dropout=dropout) is not None) == is_taken


def test_the_same_seed_drops_the_same() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(own(*heads(), None, dropout=0.5))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "change",
    [
        {"is_causal": True},
        {"position_bias": torch.zeros(1)},
        {"dropout": 0.0},
        {"attention_mask": object()},
        {"key": torch.zeros(ROWS, 1, LENGTH, WIDTH), "value": torch.zeros(ROWS, 1, LENGTH, WIDTH)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_other_attention_is_called_as_it_is(change: dict[str, Any]) -> None:
    query, key, value = heads()
    given = {"query": query, "key": key, "value": value, "attention_mask": None, "dropout": 0.1} | change
    arguments = [given.pop(name) for name in ("query", "key", "value", "attention_mask")]
    attend = in_parts(lambda *_, **options: options, always=False)
    assert attend(MODULE, *arguments, **given) == given


def test_autocast_decides_the_dtype() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        mine = own(*heads(), None)
        plain = torch.nn.functional.scaled_dot_product_attention(*heads())
    assert mine.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(mine, plain, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_second_derivatives(mask: Tensor | None) -> None:
    query, key, value = heads(torch.float64)
    mask = mask.double() if mask is not None and mask.is_floating_point() else mask

    def formula() -> Tensor:
        scores = query @ key.transpose(-1, -2) * WIDTH**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return cast("Tensor", scores.softmax(dim=-1) @ value)

    def penalty(output: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(output.pow(3).sum(), (query, key, value), create_graph=True)
        total = torch.stack([own.square().sum() for own in first]).sum()
        return list(torch.autograd.grad(total, (query, key, value)))

    assert differs(penalty(own(query, key, value, mask)), penalty(formula())) < 1e-10


def test_a_mask_that_learns_and_a_dropout_of_all_are_left_to_others() -> None:
    query, key, value = heads()
    bias = torch.zeros(ROWS, HEADS, LENGTH, LENGTH, requires_grad=True)
    for options in ({"mask": bias}, {"mask": None, "dropout": 1.0}):
        with pytest.raises(AssertionError, match="it was called"):
            own(query, key, value, **cast("Any", options))
