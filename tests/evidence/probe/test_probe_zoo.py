"""The probe on every type of the zoo: everything is put back, and a frozen backbone leaves the head alone to move."""

from __future__ import annotations

import pytest
import torch

import frostline as fl
from tests.evidence.states import state
from tests.thinning import one_in
from tests.zoo.build import CANNOT_BUILD, build, model_types


@pytest.mark.parametrize("model_type", one_in(5, (name for name in model_types() if name not in CANNOT_BUILD)))
def test_every_type(model_type: str) -> None:
    specimen = build(model_type)
    model, batch = specimen.model, {**specimen.batch, "labels": specimen.labels}
    before = state(model)
    found = fl.probe(model, batch)
    assert state(model) == before
    assert not any(parameter.moved for parameter in found.parameters if not parameter.trainable)
    assert next(row for row in found.rows if row.name == "head").moved == "yes"

    fl.freeze(model, "backbone")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    before = state(model, optimizer)
    found = fl.probe(model, batch, optimizer)
    assert state(model, optimizer) == before
    assert (found.ok, found.changes) == (True, "head")
