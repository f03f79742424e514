from __future__ import annotations

import pytest
import torch
from torch import nn

from frostline.engine.rows import Rows
from frostline.engine.single import keys_and_values, places_of, pooled_position
from tests.models import tiny

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
RIGHT, LEFT = Rows(MASK), Rows(MASK.flip(1))


def test_the_last_token_is_the_last_real_one() -> None:
    assert places_of("last token", RIGHT).tolist() == [2, 0]
    assert places_of("last token", LEFT).tolist() == [3, 3]
    assert places_of("first token", RIGHT).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("strength", "position"),
    [
        ([[1.0, 0, 0, 0], [1.0, 0, 0, 0]], "first token"),
        ([[0, 0, 1.0, 0], [1.0, 0, 0, 0]], "last token"),
        ([[0, 0, 0, 1.0], [0, 0, 0, 1.0]], None),
        ([[1.0, 1.0, 1.0, 0], [1.0, 0, 0, 0]], None),
        ([[1.0, 0, 0, 0], [0, 1e-30, 0, 0]], None),
        ([[torch.nan, 0, 0, 0], [torch.nan, 0, 0, 0]], "first token"),
        ([[1.0, torch.nan, 0, 0], [1.0, 0, 0, 0]], None),
    ],
)
def test_the_one_position_is_told_by_what_reaches_the_logits(strength: list[list[float]], position: str | None) -> None:
    assert pooled_position(torch.tensor(strength), RIGHT) == position


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
