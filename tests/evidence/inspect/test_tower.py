"""The tower says the same as the inspection it belongs to."""

from __future__ import annotations

import pytest
import torch

import frostline as fl
from tests.models import tiny


@pytest.mark.parametrize("kind", ["bert", "t5", "bart", "albert"])
def test_it_adds_up_to_the_inspection(kind: str) -> None:
    model = tiny(kind, meta=True)
    fl.freeze(model, "embeddings, ~bias")
    found = fl.inspect(model)
    units, rows = found.tower.units, found.rows
    parameters = [one for unit in units for one in unit.parameters]
    assert sum(one.size for one in parameters) == found.parameters
    assert sum(one.size for one in parameters if one.trains) == found.trainable_parameters
    assert {one.name: one.trains for one in parameters} == dict(found.names)
    weights = sum(one.bytes for one in parameters) + sum(unit.buffer_bytes for unit in units)
    assert weights == sum(row.bytes * row.units for row in rows)
    assert found.tower.tied == found.tied
    bias = {one.name for one in parameters if "bias" in one.kinds}
    assert bias == set(fl.select(model, "bias").names) if bias else kind == "t5"


def test_a_name_that_the_language_reads_otherwise() -> None:
    model = torch.nn.Module()
    model.bias = torch.nn.Parameter(torch.zeros(2))
    ((parameter,),) = (unit.parameters for unit in fl.inspect(model).tower.units)
    assert (parameter.name, parameter.term, parameter.shape) == ("bias", "re:bias", (2,))
