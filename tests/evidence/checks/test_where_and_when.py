from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

import frostline as fl
from tests.evidence.checks.cases import found, must_find
from tests.models import Plain, tiny


def test_tied_conflict() -> None:
    model = Plain()
    model.copied = nn.Embedding(10, 4)
    assert found("tied-conflict", model) is None
    model.copied.weight.data = model.embed.weight.data
    assert found("tied-conflict", model) is None
    model.embed.weight.requires_grad_(False)
    row = must_find("tied-conflict", model)
    assert (row.severity, set(row.names)) == ("error", {"embed.weight", "copied.weight"})
    model.copied.weight = model.embed.weight
    assert found("tied-conflict", model) is None


@pytest.mark.parametrize("freeze", ["layers[1]", "layers[1:], head, pooler"])
def test_trains_below_frozen(freeze: str) -> None:
    model = tiny("bert")
    fl.freeze(model, freeze)
    row = must_find("trains-below-frozen", model)
    assert (row.severity, row.units) == ("note", ("layer 1",))
    assert "'embeddings, layers[:1]'" in row.mend  # as many as are frozen


@pytest.mark.parametrize("freeze", ["embeddings", "embeddings, layers[0]", "backbone", "backbone, ~bias", "pooler"])
def test_freezing_from_the_bottom(freeze: str) -> None:
    model = tiny("bert")
    fl.freeze(model, freeze)
    assert found("trains-below-frozen", model) is None


def test_towers_are_told_apart() -> None:
    model = tiny("bart")
    fl.freeze(model, "decoder.layers[:]")
    assert {unit.partition(" ")[0] for unit in must_find("trains-below-frozen", model).units} == {"decoder"}


def test_resize_unfroze() -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    assert found("resize-unfroze", model) is None
    model.resize_token_embeddings(60, mean_resizing=False)
    assert found("resize-unfroze", model) is None  # transformers keeps the flag
    model.set_input_embeddings(nn.Embedding(60, 16))
    row = must_find("resize-unfroze", model)
    assert (row.severity, row.names) == ("warning", ("bert.embeddings.word_embeddings.weight",))
    fl.freeze(model, "backbone")
    assert found("resize-unfroze", model) is None


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_before_freeze(in_place: bool) -> None:
    compilations: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compilations.append(graph)
        return graph.forward

    def compiled(model: nn.Module) -> nn.Module:
        if in_place:
            model.compile(backend=backend)
            return model
        wrapped: Any = torch.compile(model, backend=backend)
        return cast("nn.Module", wrapped)

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.above(self.below(inputs))
            return outputs

    inputs = torch.ones(2, 3)
    late = compiled(Pair())
    late(inputs)
    assert found("compiled-before-freeze", late) is None
    assert len(compilations) == 1
    late(inputs)
    assert len(compilations) == 1
    frozen = fl.freeze(late, "below.weight")
    row = must_find("compiled-before-freeze", late)
    assert (row.severity, len(row.names)) == ("note", 1)
    late(inputs)
    assert len(compilations) == 2  # what the finding says: it was compiled again
    frozen.restore()
    assert found("compiled-before-freeze", late) is None

    early = Pair()
    fl.freeze(early, "below.weight")
    assert found("compiled-before-freeze", compiled(early)) is None


def test_no_values_are_read_from_the_meta_device() -> None:
    model = tiny("bert", meta=True)
    model.get_parameter("classifier.bias").requires_grad_(False)
    assert found("tied-conflict", model) is None
