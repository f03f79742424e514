from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

import frostline as fl
from tests.evidence.checks.cases import found, loaded, must_find
from tests.models import tiny, tiny_config

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_frozen() -> None:
    model = tiny("bert")
    assert found("everything-frozen", model) is None
    fl.freeze(model, "all, ~classifier.bias")
    assert found("everything-frozen", model) is None
    fl.freeze(model, "all")
    row = must_find("everything-frozen", model)
    assert row.severity == "error"
    assert row.units == ("embeddings", "layer 0", "layer 1", "pooler", "head")
    assert len(row.names) == len(list(model.parameters()))


def test_head_frozen(tmp_path: Path) -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    assert found("head-frozen", model) is None
    fl.train_only(model, "layers[-1:]")
    row = must_find("head-frozen", model)
    assert (row.severity, row.units) == ("warning", ("head",))
    assert row.names == ("classifier.weight", "classifier.bias")

    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    fl.freeze(again, "head")
    assert must_find("head-frozen", again).severity == "note"  # a trained head may be meant to stay


def test_new_head_frozen(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    fl.freeze(model, "backbone")
    assert found("new-but-frozen", model) is None
    fl.train_only(model, "pooler")
    row = must_find("new-but-frozen", model)
    assert (row.severity, row.units) == ("warning", ("head",))


def test_new_pooler_frozen(tmp_path: Path) -> None:
    # A checkpoint for masked words has no pooler: freezing the backbone freezes random values.
    cast("Any", AutoModelForMaskedLM).from_config(tiny_config("bert")).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    fl.freeze(model, "backbone")
    row = must_find("new-but-frozen", model)
    assert row.units == ("pooler",)
    assert row.names == ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
    fl.train_only(model, "pooler, head")
    assert found("new-but-frozen", model) is None


@pytest.mark.parametrize(
    "key",
    ["requires_grad", "requires_gard", "require_grad", "require_grads", "required_grad", "requires_grad_", "trainable"],
)
def test_no_op_flag_on_a_module(key: str) -> None:
    model = tiny("bert")
    assert found("no-op-flag", model) is None
    vars(model.base_model)[key] = False
    row = must_find("no-op-flag", model)
    assert row.severity == "error"
    assert row.names == ("bert",)
    assert row.units == ("embeddings", "layer 0", "layer 1", "pooler")
    assert f"bert.{key} = False" in row.cause
    for parameter in model.base_model.parameters():
        parameter.requires_grad = False
    assert found("no-op-flag", model) is None  # it does no harm any more


def test_no_op_flag_on_a_parameter() -> None:
    model = tiny("bert")
    cast("Any", model.base_model).embeddings.word_embeddings.weight.requires_gard = False
    row = must_find("no-op-flag", model)
    assert row.names == ("bert.embeddings.word_embeddings.weight",)
    assert row.units == ("embeddings",)


@pytest.mark.parametrize("key", ["grad", "requires", "training_grad", "has_grad", "frozen"])
def test_other_attributes_are_no_flags(key: str) -> None:
    model = tiny("bert")
    vars(model.base_model)[key] = False
    assert found("no-op-flag", model) is None
