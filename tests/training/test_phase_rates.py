from __future__ import annotations

from typing import Any

import pytest
import torch

from frostline.training.phase_rates import PhaseRates


class Counting(torch.optim.SGD):
    """Keeps a count in its groups, as schedule-free optimizers do."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
        return super().step(closure)


def test_rates_hold_for_one_step_and_the_groups_come_back() -> None:
    one, other, still = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    optimizer = Counting([{"params": [still, one], "weight_decay": 0.0}, {"params": [other], "lr": 0.5}], lr=0.1)
    groups = optimizer.param_groups
    rates = PhaseRates()
    for count in (1, 2):
        for parameter in (one, other):
            parameter.grad = torch.ones(1)
        rates.put(optimizer, {one: 10.0, other: 1.0}, 0.5)
        assert sorted(group["lr"] for group in optimizer.param_groups) == [0.25, 0.5]
        optimizer.step()
        rates.take_away()
        rates.take_away()  # which changes nothing
        assert optimizer.param_groups is groups
        assert [(group["lr"], len(group["params"]), group["count"]) for group in groups] == [
            (0.1, 2, count),
            (0.5, 1, count),
        ]
    assert [parameter.item() for parameter in (one, other, still)] == pytest.approx([-1.0, -0.5, 0.0])
    assert rates.highest == 0.5


def test_parts_of_one_group() -> None:
    one, other = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([one, other], lr=0.1)
    rates = PhaseRates()
    rates.put(optimizer, {one: 1.0, other: 2.0}, 1.0)
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [(1, 0.1), (1, 0.2)]
    rates.put(optimizer, {one: 3.0}, 1.0)  # a step that raised was never taken away
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
    rates.take_away()
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [(2, 0.1)]
