from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from frostline.engine.selection import Selection, marked, selection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Head = Callable[[Tensor], Any]

ROWS, LENGTH, WIDTH = 3, 7, 4
EACH = torch.arange(ROWS)
PLACES = torch.tensor([0, 2, 5])


def _told(head: Head, *, trains: bool = False) -> tuple[Selection | None, Tensor]:
    """What is said of a head, and which positions it reads in fact, bool, (rows, length)."""
    hidden = torch.randn(ROWS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0), requires_grad=trains)
    own, node = marked(hidden)
    given_out = head(own)
    outputs: Sequence[Tensor] = given_out if isinstance(given_out, tuple) else (given_out,)
    found = selection_of(outputs, node, (ROWS, LENGTH))
    total = torch.zeros(())
    for number, output in enumerate(outputs):
        if output.requires_grad:
            weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(number + 1))
            total = total + (output * weights).sum()
    reads = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, [own], allow_unused=True)
        reads = reads if gradient is None else gradient.abs().sum(-1) > 0
    return found, reads


def _at(places: Tensor) -> Tensor:
    return torch.zeros(ROWS, LENGTH, dtype=torch.bool).index_put((EACH, places), torch.tensor(True))


def _rms(hidden: Tensor) -> Tensor:
    """As the models of transformers write it."""
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6) * torch.ones(WIDTH)


def _linear(inputs: int = WIDTH, outputs: int = 5, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def _index(places: Tensor) -> Tensor:
    return places[:, None, None].expand(-1, 1, WIDTH)


class Mul(torch.autograd.Function):
    """Has the name of a function of torch, and mixes positions."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        return hidden.cumsum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].flip(1).cumsum(1).flip(1)


class Select(torch.autograd.Function):
    """Has the name of a selection, and reads the mean."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        return hidden.mean(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].unsqueeze(1).expand(-1, LENGTH, -1) / LENGTH


# By place, and whether that place is one of all batches.
ONE: dict[str, tuple[Head, list[int], bool]] = {
    "select": (lambda h: h[:, 0], [0, 0, 0], True),
    "select a later one": (lambda h: h.select(1, 2), [2, 2, 2], True),
    "select from the end": (lambda h: h[:, -1], [6, 6, 6], False),
    "select and a part of its values": (lambda h: h[:, 0, :2], [0, 0, 0], True),
    "select behind an ellipsis": (lambda h: h[..., 0, :], [0, 0, 0], True),
    "slice": (lambda h: h[:, :1], [0, 0, 0], True),
    "slice of a later one": (lambda h: h[:, 3:4].squeeze(1), [3, 3, 3], True),
    "narrow": (lambda h: h.narrow(1, 1, 1), [1, 1, 1], True),
    "index by arange and places": (lambda h: h[EACH, PLACES], [0, 2, 5], False),
    "index by arange and a constant": (lambda h: h[EACH, 0], [0, 0, 0], True),
    "index by arange and the last": (lambda h: h[EACH, -1], [6, 6, 6], False),
    "index by arange and one place": (lambda h: h[EACH, torch.tensor([3])], [3, 3, 3], False),
    "index from the end": (lambda h: h[EACH, PLACES - LENGTH], [0, 2, 5], False),
    "index by lists": (lambda h: h[[0, 1, 2], [0, 2, 5]], [0, 2, 5], False),
    "a norm before": (lambda h: nn.LayerNorm(WIDTH)(h)[:, 0], [0, 0, 0], True),
    "a linear layer before": (lambda h: _linear()(h)[:, 0], [0, 0, 0], True),
    "a linear layer without bias before": (lambda h: _linear(bias=False)(h)[EACH, PLACES], [0, 2, 5], False),
    "a network before": (lambda h: _linear(5, 2)(_linear()(h).tanh())[:, 0], [0, 0, 0], True),
    "a root mean square norm before": (lambda h: _rms(h)[:, 0], [0, 0, 0], True),
    "torch's own": (lambda h: nn.RMSNorm(WIDTH)(h)[:, 0], [0, 0, 0], True),
    "dropout before": (lambda h: functional.dropout(h, 0.5)[:, 0], [0, 0, 0], True),
    "a mask before": (lambda h: (h * (torch.arange(LENGTH) < 5)[None, :, None])[:, 0], [0, 0, 0], True),
    "filled by a mask before": (lambda h: h.masked_fill(torch.arange(LENGTH)[:, None] > 4, 0.0)[:, 0], [0, 0, 0], True),
    "a cast before": (lambda h: h.half()[:, 0].float(), [0, 0, 0], True),
    "a residual before": (lambda h: (h + functional.gelu(h))[:, 0], [0, 0, 0], True),
    "heads": (lambda h: h.view(ROWS, LENGTH, 2, 2)[:, 0], [0, 0, 0], True),
    "a pooler behind": (lambda h: _linear()(h[:, 0]).softmax(-1), [0, 0, 0], True),
    "other rows behind": (lambda h: h[:, 0] @ h[:, 0].t(), [0, 0, 0], True),
    "the same twice": (lambda h: (h[:, 0], h[:, 0].norm(dim=-1)), [0, 0, 0], True),
    "the same on two ways": (lambda h: h[:, 0] + h[EACH, EACH * 0], [0, 0, 0], False),
    "and something that has nothing to do with it": (lambda h: (h[:, 0], torch.ones(2)), [0, 0, 0], True),
    "a place that values decide on": (lambda h: h[EACH, h.sum(-1).argmax(-1)], [3, 0, 0], False),
}


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("name", ONE)
def test_one_position(name: str, trains: bool) -> None:
    head, places, is_fixed = ONE[name]
    found, reads = _told(head, trains=trains)
    assert found is not None
    assert found.places.tolist() == places
    assert found.is_fixed == is_fixed
    assert not (reads & ~_at(found.places)).any()


SEVERAL: dict[str, Head] = {
    "the tensor itself": lambda h: h,
    "the tensor among others": lambda h: (h[:, 0], h.tanh()),
    "two positions": lambda h: (h[:, 0], h[:, 1]),
    "two positions side by side": lambda h: torch.cat([h[:, 0], h[:, -1]], dim=-1),
    "two places by index": lambda h: h[EACH, PLACES] + h[EACH, PLACES + 1],
    "one position and the mean": lambda h: h[:, 0] + h.mean(dim=1),
    "two positions in a slice": lambda h: h[:, :2],
    "all but one": lambda h: h[:, 1:],
    "the mean": lambda h: h.mean(dim=1),
    "the mean of real tokens": lambda h: (h * (torch.arange(LENGTH) < 5)[:, None]).sum(1) / 5,
    "the mean of everything": lambda h: h.mean(),
    "the sum of everything": lambda h: h.sum(),
    "a mean after a linear layer": lambda h: _linear()(h).mean(1),
    "the largest": lambda h: h.max(dim=1).values,
    "the largest as a function": lambda h: h.amax(1),
    "flattened into a linear layer": lambda h: _linear(LENGTH * WIDTH, 2)(h.flatten(1)),
    "flattened by a view": lambda h: _linear(LENGTH * WIDTH, 2)(h.reshape(ROWS, -1)),
    "a softmax over positions": lambda h: h.softmax(1)[:, 0],
    "attention": lambda h: (h @ h.transpose(1, 2)).softmax(-1)[:, 0],
    "a convolution": lambda h: functional.conv1d(h.transpose(1, 2), torch.ones(2, WIDTH, 3))[..., 0],
    "a sum that runs": lambda h: h.cumsum(1)[:, 3],
    "a row for all": lambda h: h[0],
    "values of all positions": lambda h: h[..., 0],
    "places by a mask": lambda h: h[torch.arange(LENGTH) < torch.tensor([[2], [1], [4]])],
    "columns": lambda h: h[:, torch.tensor([0, 1])],
    "another position per value": lambda h: h.gather(1, torch.arange(WIDTH).expand(ROWS, 1, WIDTH)),
    "gathered along another axis": lambda h: h.gather(2, torch.zeros(ROWS, LENGTH, 1, dtype=torch.int64)),
    "a recurrent network": lambda h: nn.GRU(WIDTH, WIDTH, batch_first=True)(h)[0][:, -1],
    "nothing of it": lambda h: torch.ones(2),
    "nothing of it, but a graph": lambda h: _linear()(torch.ones(2, WIDTH)),
    "what was cut off": lambda h: h.detach()[:, 0],
    "pairs of positions": lambda h: (h.unsqueeze(2) * h.unsqueeze(1))[:, 0],
    "each position, once for all places": lambda h: (h.unsqueeze(1) * torch.ones(1, LENGTH, 1, 1))[:, 0],
    "weights that sum to one": lambda h: (h.sum(-1).sigmoid() / h.sum(-1).sigmoid().sum(-1, keepdim=True))[:, 0],
    "a norm over positions": lambda h: functional.layer_norm(h.sum(-1), (LENGTH,))[:, 0],
    "every place of every row": lambda h: h[EACH, PLACES[:, None]],
    "several places of each row": lambda h: h[EACH[:, None], torch.stack([PLACES, PLACES + 1], dim=1)],
    "a function of one's own": lambda h: Mul.apply(h)[:, 3],  # type: ignore[no-untyped-call]
    "another of one's own": Select.apply,
}

# One position, or less than one of each row, in a way that is not followed.
UNTOLD: dict[str, Head] = {
    "a transpose": lambda h: h.transpose(0, 1)[0],
    "a permutation": lambda h: h.permute(1, 0, 2)[0],
    "positions that are turned": lambda h: h.flip(1)[:, 0],
    "positions that are moved": lambda h: h.roll(1, 1)[:, 0],
    "rows in another order": lambda h: h[EACH.flip(0), PLACES],
    "some rows only": lambda h: h[EACH[:2], PLACES[:2]],
    "gathered from a view": lambda h: h.reshape(ROWS, -1).gather(1, torch.full((ROWS, 1), 5)),
    "an index with a column, of which it cannot be told": lambda h: h[EACH[:, None], PLACES[:, None]],
    "gathered, of which it cannot be told": lambda h: h.gather(1, _index(PLACES)).squeeze(1),
    "scores by token, of which it cannot be told": lambda h: _linear(outputs=1)(h).squeeze(-1)[:, 0],
    "several gathered": lambda h: h.gather(1, torch.zeros(ROWS, 2, WIDTH, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_more_than_one_or_none(name: str) -> None:
    found, reads = _told(SEVERAL[name])
    assert found is None
    assert reads.sum(1).max() != 1  # the case is what it says


@pytest.mark.parametrize("name", UNTOLD)
def test_what_cannot_be_told_is_none(name: str) -> None:
    found, reads = _told(UNTOLD[name])
    assert found is None
    assert reads.sum(1).max() == 1


def test_what_is_written_in_place_is_not_taken_for_one_position() -> None:
    def head(hidden: Tensor) -> Tensor:
        own = hidden.clone()
        own[:, 0] = hidden.mean(dim=1)
        return own[:, 0]

    assert _told(head)[0] is None


def test_a_tensor_is_marked_with_and_without_autograd() -> None:
    plain = torch.ones(ROWS, LENGTH, WIDTH)
    with torch.no_grad():
        own, node = marked(plain)
    assert torch.equal(own, plain)
    assert own.data_ptr() == plain.data_ptr()
    assert own.requires_grad
    assert not plain.requires_grad
    assert own.grad_fn is node
    leaf = plain.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(marked(leaf)[0][:, 0].sum(), [leaf])
    assert torch.equal(gradient.sum((0, 2)), torch.tensor([12.0, 0, 0, 0, 0, 0, 0]))


def test_two_tensors_are_told_apart() -> None:
    (one, first), (other, second) = (marked(torch.randn(ROWS, LENGTH, WIDTH)) for _ in range(2))
    outputs = [one[:, 0] + other.mean(1)]
    found = selection_of(outputs, first, (ROWS, LENGTH))
    assert found is not None
    assert found.places.tolist() == [0, 0, 0]
    assert selection_of(outputs, second, (ROWS, LENGTH)) is None


STEPS: dict[str, Head] = {
    "tanh": lambda h: h.tanh(),
    "twice": lambda h: h + h * 2,
    "softmax of values": lambda h: h.softmax(-1),
    "softmax of positions": lambda h: h.softmax(1) if h.dim() > 1 else h,
    "layer norm": lambda h: functional.layer_norm(h, h.shape[-1:]),
    "last axis": lambda h: h.mean(-1, keepdim=True),
    "first position": lambda h: h[:, :1] if h.dim() > 1 else h,
    "select": lambda h: h[:, 0] if h.dim() > 2 else h,
    "select the last": lambda h: h[:, -1] if h.dim() > 2 else h,
    "mean of positions": lambda h: h.mean(1, keepdim=True) if h.dim() > 1 else h,
    "flatten": lambda h: h.flatten(1) if h.dim() > 1 else h,
    "transpose": lambda h: h.transpose(0, 1) if h.dim() > 1 else h,
    "linear": lambda h: functional.linear(h, torch.linspace(-1, 1, 2 * h.shape[-1]).view(2, -1)),
    "an axis more": lambda h: h.unsqueeze(-1),
    "pairs": lambda h: h.unsqueeze(2) * h.unsqueeze(1) if h.dim() == 3 else h,
    "an axis between": lambda h: h.unsqueeze(1),
    "for all places": lambda h: h * torch.ones(LENGTH, 1, 1) if h.dim() == 4 and h.shape[1] == 1 else h,
    "made to sum to one": lambda h: h / h.sum(-1, keepdim=True),
    "the sum of values": lambda h: h.sum(-1) if h.dim() > 1 else h,
    "cat": lambda h: torch.cat([h, h * 3], dim=-1),
    "clone": lambda h: h.clone(),
}


@settings(max_examples=200)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=5), st.booleans())
def test_whatever_is_said_no_other_position_counts(names: list[str], several: bool) -> None:
    def head(hidden: Tensor) -> Any:
        outputs = [hidden]
        for name in names:
            outputs.append(STEPS[name](outputs[-1]))
        return (outputs[-1], STEPS["first position"](outputs[len(outputs) // 2]) * 2) if several else outputs[-1]

    found, reads = _told(head)
    if found is not None:
        assert not (reads & ~_at(found.places)).any()
