"""Modules that hold one model: they are looked through, whoever wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import nn

import frostline as fl
from frostline.anatomy.wrappers import unwrap
from tests.anatomy.test_modelmap import assert_complete
from tests.holders import Lit, LitOfParts, SentenceEncoder
from tests.models import Plain, names_of, tiny, trainable

if TYPE_CHECKING:
    from collections.abc import Callable


def backbone() -> nn.Module:
    return tiny("bert").get_submodule("bert")


def compiled() -> nn.Module:
    return cast("nn.Module", torch.compile(tiny("bert"), backend="eager"))  # nothing is compiled before the first call


@pytest.mark.parametrize(
    ("make", "prefix", "classes"),
    [
        (lambda: Lit(tiny("bert")), "model.", ("Lit",)),
        (lambda: Lit(compiled()), "model._orig_mod.", ("Lit", "OptimizedModule")),
        (lambda: Lit(Plain()), "model.", ("Lit",)),
        (lambda: SentenceEncoder(backbone()), "0.auto_model.", ("SentenceEncoder", "Transformer")),
        (lambda: Lit(SentenceEncoder(backbone())), "model.0.auto_model.", ("Lit", "SentenceEncoder", "Transformer")),
    ],
)
def test_they_are_looked_through_and_named(
    make: Callable[[], nn.Module], prefix: str, classes: tuple[str, ...]
) -> None:
    model = make()
    found = unwrap(model)
    assert (found.prefix, found.wrappers) == (prefix, classes)
    anatomy = assert_complete(model)
    inside = fl.ModelMap.of(found.core)
    assert [unit.name for unit in anatomy.units if unit.parameter_names] == [unit.name for unit in inside.units]
    assert anatomy.parameter_names == tuple(f"{prefix}{name}" for name in inside.parameter_names)
    assert anatomy.notes[0] == f"Looked through {', '.join(classes)} to {anatomy.model_class}."


def test_the_backbone_is_frozen_without_the_head() -> None:
    model = Lit(tiny("bert"))
    with fl.freeze(model, "backbone"):
        assert trainable(model) == names_of(model, "model.classifier.")
    assert set(fl.select(model, "layers[1]").names) == names_of(model, "model.bert.encoder.layer.1.")
    assert set(fl.select(model, "bert.pooler").names) == names_of(model, "model.bert.pooler.")


class Beside(nn.Module):
    """Has a parameter of its own beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tiny("bert")
        self.scale = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny("bert"),
        Plain,
        Beside,
        lambda: LitOfParts(backbone()),
        lambda: nn.ModuleDict({"teacher": tiny("bert"), "student": tiny("bert")}),
        lambda: nn.Sequential(Plain()),  # no model of transformers, and no training step: part of a model
        nn.Identity,
    ],
)
def test_what_is_more_than_a_holder_is_not(make: Callable[[], nn.Module]) -> None:
    model = make()
    assert unwrap(model).core is model
    assert unwrap(model).wrappers == ()


def test_a_head_beside_the_backbone_stays_a_head() -> None:
    model = LitOfParts(backbone())
    with fl.freeze(model, "backbone"):
        assert trainable(model) == names_of(model, "head.")


def test_many_holders_in_each_other_take_no_time() -> None:
    model: nn.Module = Plain()
    for _ in range(60):
        model = nn.Sequential(model)
    assert unwrap(model).core is model
