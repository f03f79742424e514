"""A step is called lost to rounding where that was measured, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from frostline.evidence.probe.rounding import group_of, lost_to_rounding
from tests.evidence.probing import build, probe_of, real_step
from tests.evidence.states import state


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adafactor])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rate", "lost"), [(1e-12, True), (1e-1, False)])
def test_by_optimizer(kind: Any, dtype: torch.dtype, rate: float, lost: bool) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = kind([parameter], lr=rate)
    options = group_of(optimizer, parameter)
    assert options is not None
    assert lost_to_rounding(optimizer, options, {}, parameter.detach(), torch.ones(3, dtype=dtype)) == lost
    parameter.grad = torch.ones(3, dtype=dtype)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(3, dtype=dtype)) == lost


def test_the_state_counts_and_stays() -> None:
    model = build("bert").to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    real_step(model, optimizer)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    causes = {one.name: (one.rounded_off, one.cause) for one in found.surprises}
    assert causes["bert.pooler.dense.weight"] == (True, "the change is lost to rounding in bfloat16")


class Lazy(torch.optim.SGD):
    """Moves its first parameter only."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            first = self.param_groups[0]["params"][0]
            first.add_(first.grad, alpha=-0.1)


def test_where_nothing_was_measured_no_cause_is_claimed() -> None:
    model = build("plain")
    found = probe_of(model, Lazy(model.parameters(), lr=0.1))
    (unmoved,) = (one for one in found.surprises if one.name == "classifier.weight")
    # A step of the same class on it alone moves it: so it is not rounding.
    assert (unmoved.gradient, unmoved.rounded_off, unmoved.cause) == ("yes", False, "no cause was found")
    assert "no cause was found" in found.verdict


def test_what_cannot_be_measured_is_not_claimed() -> None:
    whole, dense = torch.ones(3, dtype=torch.int64), torch.ones(3)
    optimizer = torch.optim.SGD([dense.requires_grad_()], lr=1e-12)
    options = group_of(optimizer, dense)
    assert options is not None
    assert not lost_to_rounding(optimizer, options, {}, whole, torch.ones(3))
    assert not lost_to_rounding(optimizer, options, {}, dense.detach(), torch.ones(3).to_sparse())
    assert not lost_to_rounding(torch.optim.LBFGS([dense]), {"lr": 1e-12}, {}, dense.detach(), torch.ones(3))
    assert group_of(optimizer, whole) is None
