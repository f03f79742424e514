from __future__ import annotations

import pytest
import torch

import frostline as fl
from frostline.errors import PlanError
from tests.evidence.checks.cases import adamw, found, must_find, rows
from tests.models import tiny


def test_moved_while_frozen() -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    before = fl.fingerprint(model)
    assert found("moved-while-frozen", model, before=before) is None
    assert found("moved-while-frozen", model) is None
    with torch.no_grad():
        model.get_parameter("bert.pooler.dense.bias").add_(1)
    row = must_find("moved-while-frozen", model, before=before)
    assert (row.severity, row.units, row.names) == ("error", ("pooler",), ("bert.pooler.dense.bias",))


def test_moved_while_frozen_and_thawed_since() -> None:
    model = tiny("bert")
    with fl.freeze(model, "backbone"):
        before = fl.fingerprint(model)
    with torch.no_grad():
        model.get_parameter("bert.pooler.dense.bias").add_(1)
    row = must_find("moved-while-frozen", model, before=before)
    assert (row.severity, row.names) == ("error", ("bert.pooler.dense.bias",))


def test_frozen_only_after_the_fingerprint() -> None:
    model = tiny("bert")
    before = fl.fingerprint(model)
    fl.freeze(model, "backbone")
    assert found("moved-while-frozen", model, before=before) is None
    still = must_find("still-while-trainable", model, before=before)
    assert still.units == ("head",)
    assert still.cause == "Nothing moved in what may train: head."
    with torch.no_grad():
        model.get_parameter("bert.pooler.dense.bias").add_(1)
    row = must_find("moved-while-frozen", model, before=before)
    assert (row.severity, row.names) == ("warning", ("bert.pooler.dense.bias",))


def test_still_while_trainable() -> None:
    model = tiny("bert")
    before = fl.fingerprint(model)
    optimizer = torch.optim.AdamW(model.get_submodule("classifier").parameters(), lr=0.1)
    model(**rows()).loss.backward()
    optimizer.step()
    row = must_find("still-while-trainable", model, before=before)
    assert row.severity == "warning"
    assert row.units == ("embeddings", "layer 0", "layer 1", "pooler")
    assert found("still-while-trainable", model) is None

    adamw(model).step()
    assert found("still-while-trainable", model, before=before) is None


def test_a_fingerprint_of_another_model() -> None:
    with pytest.raises(PlanError, match="another model"):
        found("moved-while-frozen", tiny("bert"), before=fl.fingerprint(torch.nn.Linear(2, 2)))
