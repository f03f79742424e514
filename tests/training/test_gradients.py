from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.training.gradients import WithGradients, cleared_quickly
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Iterator


def given_gradients(model: nn.Module, every: int) -> list[int]:
    """Ids of every so many parameters, which have a gradient from now on, in the model's order."""
    chosen = list(model.parameters())[::every]
    for parameter in chosen:
        parameter.grad = torch.ones_like(parameter)
    return [id(parameter) for parameter in chosen]


def test_order_and_number_are_those_of_the_model() -> None:
    model = tiny("bert")
    found = WithGradients.of(model)
    assert list(found.parameters()) == []
    wanted = given_gradients(model, 3)
    assert isinstance(found, WithGradients)
    assert [id(parameter) for parameter in found.parameters()] == wanted


def test_what_is_shared_counts_once_and_where_it_is_first() -> None:
    shared, tied = nn.Linear(2, 2), nn.Linear(2, 2)
    tied.weight = nn.Linear(2, 2).weight
    inner = nn.Sequential(nn.Linear(2, 2), shared, tied)
    model: Any = nn.ModuleList([inner, nn.Linear(2, 2), shared])
    model.register_module("missing", None)
    model.register_parameter("nothing", None)
    model[1].weight = tied.weight
    wanted = given_gradients(model, 1)
    assert [id(parameter) for parameter in WithGradients.of(model).parameters()] == wanted


def test_a_model_with_its_own_way_to_tell_them_is_asked() -> None:
    class Own(nn.Linear):
        def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
            yield from [parameter for _, parameter in self.named_parameters()][:1]

    model = Own(2, 2)
    assert WithGradients.of(model) is model


def test_gradients_are_cleared_as_the_model_does() -> None:
    model = tiny("bert")
    with cleared_quickly(model):
        wanted = given_gradients(model, 3)
        model.zero_grad(set_to_none=False)
        found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert len(found) == len(wanted)
        assert not any(bool(gradient.any()) for gradient in found)
        copy = deepcopy(model)
        model.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
        given_gradients(model, 1)
        copy.zero_grad()
        assert all(parameter.grad is None for parameter in copy.parameters())
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert "zero_grad" not in vars(model)


def test_a_model_with_its_own_way_to_clear_them_keeps_it() -> None:
    class Own(nn.Linear):
        def zero_grad(self, set_to_none: bool = True) -> None:
            raise RuntimeError("its own")

    model = Own(2, 2)
    with cleared_quickly(model):
        assert "zero_grad" not in vars(model)
    given = nn.Linear(2, 2)
    given.zero_grad = model.zero_grad  # type: ignore[method-assign]
    with cleared_quickly(given):
        assert vars(given)["zero_grad"] == model.zero_grad
    assert vars(given)["zero_grad"] == model.zero_grad
