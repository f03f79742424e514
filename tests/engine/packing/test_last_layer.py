from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from frostline.engine.interpose import interposed
from frostline.engine.packing.last_layer import Position, Single, keys_and_values, places_of, position_named
from frostline.engine.packing.packing import Packing
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.selection import selection_of
from frostline.engine.token_layout import TokenLayout
from tests.models import tiny

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
RIGHT, LEFT = TokenLayout(MASK), TokenLayout(MASK.flip(1))


def test_the_last_token_is_the_last_real_one() -> None:
    assert places_of("last token", RIGHT).tolist() == [2, 0]
    assert places_of("last token", LEFT).tolist() == [3, 3]
    assert places_of("first token", RIGHT).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("rows", "places", "position"),
    [
        (RIGHT, [0, 0], "first token"),
        (RIGHT, [2, 0], "last token"),
        (RIGHT, [3, 3], None),
        (RIGHT, [1, 0], None),
        (LEFT, [0, 0], "first token"),
        (LEFT, [3, 3], "last token"),
        (LEFT, [1, 3], None),
    ],
)
def test_the_one_position_has_a_name_if_it_is_the_same_in_all_rows(
    rows: TokenLayout, places: list[int], position: str | None
) -> None:
    assert position_named(torch.tensor(places), rows) == position


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("bert", "bert.encoder.layer.1"),
        ("distilbert", "distilbert.transformer.layer.1"),
        ("llama", "model.layers.1"),
    ],
)
def test_keys_and_values_are_told_by_their_names(kind: str, path: str) -> None:
    layer = tiny(kind).get_submodule(path)
    found = keys_and_values(layer)
    assert found is not None
    names = {module: name.rpartition(".")[2] for name, module in layer.named_modules()}
    assert [names[module][0] for module in found] == ["k", "v"]


def test_a_layer_with_two_attentions_or_one_projection_for_all_has_none() -> None:
    assert keys_and_values(tiny("bart").get_submodule("model.decoder.layers.0")) is None
    assert keys_and_values(tiny("gpt2").get_submodule("transformer.h.1")) is None
    assert keys_and_values(nn.Linear(2, 2)) is None


class Layer(nn.Module):
    """Normalises what it is given, makes queries, keys and values in one product, and turns them by a table."""

    def __init__(self, *, causal: bool, calls: int = 1) -> None:
        super().__init__()
        self.is_causal = causal
        self.calls = calls
        self.norm = nn.LayerNorm(8)
        self.project = nn.Linear(8, 24)
        self.dense = nn.Linear(8, 8)

    def forward(self, hidden: torch.Tensor, table: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        heads = self.project(self.norm(hidden)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        query, key, value = heads[0] + table[:, None], heads[1] - table[:, None], heads[2]
        mixed = hidden
        for _ in range(self.calls):
            attended: torch.Tensor = ALL_ATTENTION_FUNCTIONS["sdpa"](self, query, key, value, mask)[0]
            mixed = mixed + attended.flatten(2)
        output: torch.Tensor = mixed + self.dense(mixed).tanh()
        return output


def _layer(*, causal: bool = False, calls: int = 1) -> Layer:
    torch.manual_seed(0)
    return Layer(causal=causal, calls=calls)


def _run(layer: Layer, rows: TokenLayout, position: Position, *inputs: torch.Tensor) -> torch.Tensor:
    return _run_marked(layer, rows, position, *inputs, marks=False)[0]


def _run_marked(
    layer: Layer, rows: TokenLayout, position: Position, *inputs: torch.Tensor, marks: bool
) -> tuple[torch.Tensor, list[Any]]:
    packing = Packing(rows, "attention")
    forwards = packing.forwards([layer], 0, Single(position, rows, None, marks=marks))
    with packing.attending(), interposed(forwards):
        output: torch.Tensor = layer(*inputs)
    return output, packing.single_nodes


def _inputs(rows: TokenLayout) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows.count, rows.length, 8, generator=generator)
    return hidden, torch.randn(1, rows.length, 4, generator=generator)


@pytest.mark.parametrize(("rows", "position"), [(RIGHT, "first token"), (RIGHT, "last token"), (LEFT, "last token")])
def test_one_position_is_as_in_the_whole_layer(rows: TokenLayout, position: Position) -> None:
    layer, (hidden, table) = _layer(), _inputs(rows)
    mask = rows.mask[:, None, None, :]
    each, places = torch.arange(rows.count), places_of(position, rows)
    own, plain = _run(layer, rows, position, hidden, table, mask), layer(hidden, table, mask)
    assert own.shape == plain.shape
    torch.testing.assert_close(own[each, places], plain[each, places], rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(output[each, places].sum(), list(layer.parameters())) for output in (own, plain)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    own[each, places] = 0.0
    assert not own.any()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", ["first token", "last token"])
def test_without_a_mask_what_comes_later_is_seen_only_where_it_is_not_causal(causal: bool, position: Position) -> None:
    rows = TokenLayout(torch.ones(3, 5, dtype=torch.bool))
    layer, (hidden, table) = _layer(causal=causal), _inputs(rows)
    place = 0 if position == "first token" else -1
    own, plain = _run(layer, rows, position, hidden, table), layer(hidden, table)
    torch.testing.assert_close(own[:, place], plain[:, place], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("calls", "reason"), [(0, "does not attend through"), (2, "attends more than once")])
def test_a_layer_that_attends_in_another_way_is_refused(calls: int, reason: str) -> None:
    with pytest.raises(NotReplayable, match=reason):
        _run(_layer(calls=calls), RIGHT, "first token", *_inputs(RIGHT), RIGHT.mask[:, None, None, :])


@pytest.mark.parametrize("position", ["first token", "last token"])
def test_what_is_read_of_it_can_be_told_by_the_graph(position: Position) -> None:
    layer, inputs = _layer().requires_grad_(requires_grad=False), _inputs(RIGHT)
    mask, each, places = RIGHT.mask[:, None, None, :], torch.arange(2), places_of(position, RIGHT)
    with torch.no_grad():
        plain, none = _run_marked(layer, RIGHT, position, *inputs, mask, marks=False)
        own, (node,) = _run_marked(layer, RIGHT, position, *inputs, mask, marks=True)
        assert torch.is_grad_enabled()  # until the forward ends, which whoever runs it sees to
        chosen, several = own[each, places], own.mean(dim=1)
    assert not none
    assert torch.equal(own, plain)
    found = selection_of([chosen], node, tuple(RIGHT.mask.shape))  # type: ignore[arg-type]
    assert found is not None
    assert found.places.tolist() == places.tolist()
    assert selection_of([chosen, several], node, tuple(RIGHT.mask.shape)) is None  # type: ignore[arg-type]
