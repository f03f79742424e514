from __future__ import annotations

from typing import Any

import pytest

import frostline as fl
from tests.evidence.checks.cases import found, must_find, rows
from tests.models import checkpoint_activations, tiny


def checkpointed(*, reentrant: bool, input_grads: bool, freeze: str = "embeddings") -> Any:
    model: Any = tiny("bert")
    fl.freeze(model, freeze)
    checkpoint_activations(model, reentrant=reentrant)
    if not input_grads:
        model.disable_input_require_grads()
    return model


@pytest.mark.parametrize("given", [{}, rows()])
def test_checkpointing_cuts_grad(given: Any) -> None:
    model = checkpointed(reentrant=True, input_grads=False)
    row = must_find("checkpointing-cuts-grad", model, None, given or None)
    assert row.severity == "error"
    assert row.units == ("layer 0", "layer 1")


@pytest.mark.parametrize("given", [{}, rows()])
@pytest.mark.parametrize(
    "options",
    [
        {"reentrant": False, "input_grads": False},
        {"reentrant": True, "input_grads": True},
        {"reentrant": True, "input_grads": False, "freeze": "layers[0]"},
        {"reentrant": True, "input_grads": False, "freeze": "backbone"},
    ],
)
def test_checkpointing_that_cuts_nothing(options: Any, given: Any) -> None:
    assert found("checkpointing-cuts-grad", checkpointed(**options), None, given or None) is None


def test_input_grads_are_not_thawing() -> None:
    model: Any = tiny("bert")
    fl.freeze(model, "embeddings")
    assert found("input-grads-are-not-thawing", model) is None
    model.enable_input_require_grads()
    row = must_find("input-grads-are-not-thawing", model)
    assert (row.severity, row.units) == ("note", ("embeddings",))
    model.disable_input_require_grads()
    assert found("input-grads-are-not-thawing", model) is None


def test_input_grads_over_embeddings_that_train() -> None:
    model: Any = tiny("bert")
    model.enable_input_require_grads()
    assert found("input-grads-are-not-thawing", model) is None
