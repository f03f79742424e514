"""Modules that hold one model: those without a forward of their own are looked through, others are read as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

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
        (lambda: nn.ModuleDict({"model": tiny("bert")}), "model.", ("ModuleDict",)),
        (lambda: Lit(SentenceEncoder(backbone())), "model.", ("Lit",)),
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


class Runs(nn.Module):
    """Runs the model in a forward of its own, and may have a part beside it."""

    def __init__(self, model: nn.Module, beside: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.beside = beside

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5", "bart"])
def test_a_model_in_a_forward_of_one_s_own_keeps_its_head(kind: str) -> None:
    inside = tiny(kind)
    units = fl.ModelMap.of(inside).units
    head = {f"model.{name}" for unit in units if unit.kind == "head" for name in unit.parameter_names}
    for model in (Runs(inside), Runs(inside, nn.Linear(2, 2))):
        assert [unit.name for unit in fl.ModelMap.of(model).units] == [unit.name for unit in units]
        with fl.freeze(model, "backbone"):
            assert trainable(model) == head | names_of(model, "beside.")


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny("bert"),
        Plain,
        lambda: Runs(tiny("bert")),
        lambda: Lit(Runs(tiny("bert"), nn.Linear(2, 2))).model,
        lambda: SentenceEncoder(backbone()),
        lambda: LitOfParts(backbone()),
        lambda: nn.ModuleDict({"teacher": tiny("bert"), "student": tiny("bert")}),
        lambda: nn.Sequential(Plain()),
        nn.Identity,
    ],
)
def test_what_runs_or_is_more_than_one_model_is_not(make: Callable[[], nn.Module]) -> None:
    model = make()
    assert unwrap(model).core is model
    assert unwrap(model).wrappers == ()


def test_a_head_beside_the_backbone_stays_a_head() -> None:
    model = LitOfParts(backbone())
    with fl.freeze(model, "backbone"):
        assert trainable(model) == names_of(model, "head.")


def test_the_layers_of_a_sentence_encoder() -> None:
    model = SentenceEncoder(backbone())
    assert [unit.name for unit in fl.ModelMap.of(model).units] == ["embeddings", "layer 0", "layer 1", "pooler"]
    with fl.freeze(model, "embeddings, layers[0]"):
        assert trainable(model) == names_of(model, "0.auto_model.encoder.layer.1.", "0.auto_model.pooler.")
