from __future__ import annotations

import pytest
import torch
from torch import nn

from frostline.engine.interpose import interposed


def test_another_function_answers_for_a_while() -> None:
    layer = nn.Linear(2, 2)
    plain = layer(torch.ones(1, 2))
    with interposed({layer: lambda value: value * 3}):
        assert layer(torch.ones(1, 2)).tolist() == [[3.0, 3.0]]
        assert layer.forward(torch.ones(1, 2)).tolist() == [[3.0, 3.0]]
    assert "forward" not in vars(layer)
    assert torch.equal(layer(torch.ones(1, 2)), plain)


def test_hooks_run_around_it() -> None:
    layer, seen = nn.Linear(2, 2), []
    layer.register_forward_hook(lambda _, given, output: seen.append((given[0].item(), output)))
    with interposed({layer: lambda value: value.item() + 1}):
        layer(torch.tensor(1.0))
    assert seen == [(1.0, 2.0)]


def test_the_instances_own_forward_comes_back() -> None:
    layer = nn.Linear(2, 2)

    def own(value: torch.Tensor) -> torch.Tensor:
        return value + 1

    vars(layer)["forward"] = own
    with interposed({layer: lambda value: value}):
        assert layer(torch.zeros(1)).item() == 0
    assert vars(layer)["forward"] is own
    assert layer(torch.zeros(1)).item() == 1


def test_everything_comes_back_when_a_forward_raises() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)

    def broken(_: torch.Tensor) -> torch.Tensor:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), interposed({first: lambda value: value, second: broken}):
        second(first(torch.ones(2)))
    assert "forward" not in vars(first)
    assert "forward" not in vars(second)


def test_one_within_the_other() -> None:
    layer = nn.Identity()
    with interposed({layer: lambda value: value + 1}):
        inner = layer.forward
        with interposed({layer: lambda value: inner(value) * 10}):
            assert layer(1) == 20
        assert layer(1) == 2
    assert layer(1) == 1
