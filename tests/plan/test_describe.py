"""The way back from names to a selector."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import frostline as fl
from frostline.plan.describe import describe
from tests.models import Plain, tiny


def _odd_names() -> nn.Module:
    """Names that the language reads otherwise: at the root, with its own signs, like its own words."""
    model = nn.Module()
    model.bias = nn.Parameter(torch.zeros(1))
    model.head = nn.Parameter(torch.zeros(1))
    model.table = nn.ParameterDict(
        {key: torch.zeros(1) for key in ("a,b", " c", "d ", "~e", "re:f", "g*", "h[0]", "i{", "(j", "k\\l", "é", "-")}
    )
    model.inner = nn.Module()
    model.inner.layers = nn.Parameter(torch.zeros(1))
    model.inner.layer = nn.Parameter(torch.zeros(1))
    model.towers = nn.Sequential(_Tower(), nn.Linear(1, 1), _OtherTower())
    return model


class _Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))


class _OtherTower(_Tower):
    pass


@cache
def model_of(kind: str) -> nn.Module:
    match kind:
        case "plain":
            return Plain()
        case "odd":
            return _odd_names()
        case _:
            return tiny(kind, meta=True, **({"num_hidden_layers": 5} if kind == "bert" else {}))


KINDS = ("bert", "t5", "bart", "plain", "odd")


@given(st.data())
def test_any_set_of_parameters_comes_back(data: st.DataObject) -> None:
    model = model_of(data.draw(st.sampled_from(KINDS)))
    anatomy = fl.ModelMap.of(model)
    names = [name for name, _ in model.named_parameters()]
    wanted = data.draw(st.sets(st.sampled_from(names), min_size=1))

    assert set(fl.select(model, describe(anatomy, wanted)).names) == wanted


@given(st.data())
def test_any_set_of_units_comes_back_as_units(data: st.DataObject) -> None:
    model = model_of(data.draw(st.sampled_from(["bert", "plain"])))
    anatomy = fl.ModelMap.of(model)
    units = [unit for unit in anatomy.units if unit.parameter_names]
    chosen = data.draw(st.sets(st.sampled_from(units), min_size=1))
    extra = data.draw(st.sets(st.sampled_from(anatomy.parameter_names), max_size=3))
    wanted = {name for unit in chosen for name in unit.parameter_names} | extra

    text = describe(anatomy, wanted)

    recipe = fl.select(model, text)
    assert set(recipe.names) == wanted
    written_by_name = {decision.term for decision in recipe.decisions} & wanted
    assert written_by_name <= extra


@given(st.data())
def test_what_a_selector_means_is_described_by_an_equal_one(data: st.DataObject) -> None:
    model = model_of("bert")
    atoms = ["embeddings", "layers[::2]", "layers[-2:]", "pooler", "head", "backbone", "bias", "norms", "*.query"]
    chosen = data.draw(st.lists(st.sampled_from(atoms), min_size=1, max_size=3))
    recipe = fl.select(model, chosen)
    assert fl.select(model, describe(fl.ModelMap.of(model), recipe.names)).names == recipe.names


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        ("bert", "all", "all"),
        ("bert", "backbone", "backbone"),
        ("bert", "embeddings, layers[0:4]", "embeddings, layers[:4]"),
        ("bert", "layers[-2:]", "layers[3:]"),
        ("bert", "layers", "layers[:]"),
        ("bert", "layers[0], layers[2:4], head", "layers[0], layers[2:4], head"),
        ("bert", "backbone, classifier.bias", "backbone, classifier.bias"),
        ("bert", "head, bert.pooler.dense.weight", "head, bert.pooler.dense.weight"),
        ("bert", "classifier.weight", "classifier.weight"),
        ("t5", "encoder.layers, decoder.layers[:2], norm", "encoder.layers[:], decoder.layers[:2], norm"),
        ("plain", "layers[1:], norm", "layers[1:], norm"),
    ],
)
def test_units_are_named_as_units(kind: str, written: str, expected: str) -> None:
    model = model_of(kind)
    text = describe(fl.ModelMap.of(model), fl.select(model, written).names)
    assert sorted(text.split(", ")) == sorted(expected.split(", "))


def test_a_model_without_a_head() -> None:
    model = nn.Linear(2, 2)
    assert describe(fl.ModelMap.of(model), ["weight", "bias"]) == "all"
    assert describe(fl.ModelMap.of(model), ["weight"]) == "re:weight"


def test_nothing() -> None:
    assert describe(fl.ModelMap.of(nn.Linear(2, 2)), []) == ""
    assert describe(fl.ModelMap.of(nn.ReLU()), []) == ""
