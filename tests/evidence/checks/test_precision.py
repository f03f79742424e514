from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

import frostline as fl
from tests.evidence.checks.cases import adamw, found, must_find, rows
from tests.models import Plain, tiny


def test_update_lost_to_rounding() -> None:
    model: Any = cast("Any", tiny("bert")).to(torch.bfloat16)
    row = must_find("update-lost-to-rounding", model, adamw(model, lr=1e-6))
    assert row.severity == "warning"
    assert "bfloat16" in row.cause
    assert "head" in row.units
    weight = model.get_parameter("classifier.weight")
    before = weight.detach().clone()
    model(**rows()).loss.backward()
    adamw(model, lr=1e-6, weight_decay=0.0).step()
    assert (before == weight).float().mean() > 0.5  # so it is lost indeed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_step_that_is_stored(dtype: torch.dtype) -> None:
    model: Any = cast("Any", tiny("bert")).to(dtype)
    rate = 1e-2 if dtype == torch.bfloat16 else 1e-6
    assert found("update-lost-to-rounding", model, adamw(model, lr=rate)) is None


def test_steps_of_sgd_need_a_gradient() -> None:
    model: Any = cast("Any", tiny("bert")).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    assert found("update-lost-to-rounding", model, optimizer) is None
    assert "head" in must_find("update-lost-to-rounding", model, optimizer, rows()).units
    model(**rows()).loss.backward()
    assert "head" in must_find("update-lost-to-rounding", model, optimizer).units


def test_fp16_unscale() -> None:
    model: Any = tiny("bert")
    assert found("fp16-unscale", model) is None
    model.half()
    assert must_find("fp16-unscale", model).severity == "warning"
    fl.freeze(model, "backbone")
    model.get_submodule("classifier").float()
    assert found("fp16-unscale", model) is None


def test_integer_weights() -> None:
    model = Plain()
    assert found("integer-weights", model) is None
    model.packed = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    row = must_find("integer-weights", model)
    assert (row.severity, row.names) == ("note", ("packed",))
