"""The probe of modules that hold one model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import frostline as fl
from frostline.errors import ModelError
from tests.holders import Lit, LitOfParts, SentenceEncoder
from tests.models import Plain, batch, tiny


def rows() -> dict[str, torch.Tensor]:
    return {"input_ids": batch(), "labels": torch.tensor([0, 1, 0, 1])}


def test_the_model_inside_takes_the_step() -> None:
    inside = tiny("bert")
    fl.freeze(inside, "embeddings, layers[0]")
    torch.manual_seed(1)
    alone = fl.probe(inside, rows())
    torch.manual_seed(1)
    held = fl.probe(Lit(inside), rows())
    assert held.verdict == alone.verdict
    assert held.loss == alone.loss
    assert [row.moved for row in held.rows] == [row.moved for row in alone.rows]
    assert [one.name for one in held.parameters] == [f"model.{one.name}" for one in alone.parameters]


def test_a_model_of_plain_torch_in_one() -> None:
    given = (batch(), torch.tensor([0, 1, 0, 1]))
    torch.manual_seed(1)
    alone = fl.probe(Plain(), given, loss=torch.nn.functional.cross_entropy)
    torch.manual_seed(1)
    held = fl.probe(Lit(Plain()), given, loss=torch.nn.functional.cross_entropy)
    assert held.loss == alone.loss
    assert {one.name: one.moved for one in held.parameters} == {
        f"model.{one.name}": one.moved for one in alone.parameters
    }


def test_a_forward_of_its_own_runs() -> None:
    model = SentenceEncoder(tiny("bert").get_submodule("bert"))
    fl.freeze(model, "layers[0]")

    def loss(output: Any) -> torch.Tensor:
        total: torch.Tensor = output["embedding"].square().mean()
        return total

    found = fl.probe(model, ({"input_ids": batch()},), loss=loss)
    moved = {row.name: row.moved for row in found.rows}
    assert (moved["layer 0"], moved["layer 1"], moved["pooler"]) == ("no", "yes", "no")


@pytest.mark.parametrize("given", [rows(), (batch(),)])
def test_one_without_a_forward_says_so(given: Any) -> None:
    model = LitOfParts(tiny("bert").get_submodule("bert"))
    for ask in (fl.probe, lambda model, given: fl.check(model, batch=given)):
        with pytest.raises(ModelError, match="LitOfParts has no forward, so no step can be taken"):
            ask(model, given)
