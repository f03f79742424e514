from __future__ import annotations

from typing import Any

import pytest
import torch

import frostline as fl
from tests.evidence.checks.cases import adamw, found, must_find, rows
from tests.models import Plain, tiny


def test_trainable_not_in_optimizer() -> None:
    model = tiny("bert")
    frozen = fl.freeze(model, "backbone")
    optimizer = adamw(model)
    assert found("trainable-not-in-optimizer", model, optimizer) is None
    frozen.restore()
    row = must_find("trainable-not-in-optimizer", model, optimizer)
    assert row.severity == "warning"
    assert "head" not in row.units
    assert row.units[0] == "embeddings"
    assert found("trainable-not-in-optimizer", model) is None


def test_optimizer_holds_strangers() -> None:
    model = tiny("bert")
    optimizer = adamw(model)
    assert found("optimizer-holds-strangers", model, optimizer) is None
    model.set_input_embeddings(torch.nn.Embedding(60, 16))
    row = must_find("optimizer-holds-strangers", model, optimizer)
    assert row.severity == "error"
    assert "(50, 16)" in row.cause
    assert found("optimizer-holds-strangers", model, adamw(model)) is None


def test_resizing_as_transformers_does_it_keeps_the_parameter() -> None:
    model = tiny("bert")
    optimizer = adamw(model)
    model.resize_token_embeddings(60, mean_resizing=False)
    assert found("optimizer-holds-strangers", model, optimizer) is None


def test_strangers_beside_a_complete_optimizer() -> None:
    model = tiny("bert")
    optimizer = torch.optim.AdamW([*model.parameters(), torch.nn.Parameter(torch.ones(2))])
    assert must_find("optimizer-holds-strangers", model, optimizer).severity == "warning"


def test_duplicate_in_optimizer() -> None:
    model = Plain()
    assert found("duplicate-in-optimizer", model, adamw(model)) is None
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = torch.optim.SGD([*model.parameters(), model.classifier.weight], lr=0.1)
    row = must_find("duplicate-in-optimizer", model, optimizer)
    assert (row.severity, row.names) == ("error", ("classifier.weight",))


def test_frozen_again() -> None:
    model = tiny("bert")
    optimizer = adamw(model)
    model(**rows()).loss.backward()
    fl.freeze(model, "backbone")
    assert found("frozen-again", model, optimizer) is None  # it has not stepped yet
    optimizer.step()
    assert found("frozen-again", model, optimizer) is None  # and not on them, whose gradients are gone
    fl.train_only(model, "all")
    model(**rows()).loss.backward()
    optimizer.step()
    assert found("frozen-again", model, optimizer) is None
    fl.freeze(model, "embeddings")
    row = must_find("frozen-again", model, optimizer)
    assert (row.severity, row.units) == ("note", ("embeddings",))


def test_zero_lr() -> None:
    model = tiny("bert")
    groups: Any = [
        {"params": model.base_model.parameters(), "lr": 0.0},
        {"params": model.get_submodule("classifier").parameters()},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    row = must_find("zero-lr", model, optimizer)
    assert row.severity == "warning"
    assert "head" not in row.units
    fl.freeze(model, "backbone")
    assert found("zero-lr", model, optimizer) is None
    assert found("zero-lr", model, adamw(model)) is None


def test_a_warm_up_that_starts_at_zero_is_no_fault() -> None:
    model = tiny("bert")
    optimizer = adamw(model)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert optimizer.param_groups[0]["lr"] == 0
    assert found("zero-lr", model, optimizer) is None
