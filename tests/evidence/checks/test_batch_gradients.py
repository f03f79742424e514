from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

import frostline as fl
from frostline.errors import ModelError
from frostline.evidence.checks.run import check
from tests.evidence.checks.cases import adamw, found, must_find, rows
from tests.evidence.states import state
from tests.models import Plain, batch, modes, tiny


class Broken(Plain):
    """Its first two blocks run without gradient."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = self.blocks[1](self.blocks[0](self.embed(ids).mean(dim=1)))
        result: torch.Tensor = self.classifier(self.final_norm(self.blocks[2](hidden)))
        return result


class Detached(Plain):
    """Nothing that it gives depends on a parameter."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids).detach()


def test_no_gradient() -> None:
    row = must_find("no-gradient", Broken(), None, batch())
    assert row.severity == "warning"
    assert row.units == ("embeddings", "layer 0", "layer 1")
    assert found("no-gradient", Plain(), None, batch()) is None
    assert found("no-gradient", Broken()) is None


def test_no_gradient_at_all() -> None:
    row = must_find("no-gradient", Detached(), None, batch())
    assert row.severity == "error"
    assert row.units[-1] == "head"


def test_what_has_no_part_in_the_loss_is_a_note() -> None:
    model = Plain()
    model.register_module("spare", nn.Linear(2, 2))
    row = must_find("no-gradient", model, None, batch())
    assert (row.severity, row.names) == ("note", ("spare.weight", "spare.bias"))


def test_non_finite_grad() -> None:
    model = tiny("bert")
    assert found("non-finite-grad", model, None, rows()) is None
    with torch.no_grad():
        model.get_parameter("classifier.weight").fill_(float("inf"))
    row = must_find("non-finite-grad", model, None, rows())
    assert row.severity == "error"
    assert "head" in row.units


def test_non_finite_gradients_held() -> None:
    model = tiny("bert")
    weight = model.get_parameter("classifier.weight")
    weight.grad = torch.zeros_like(weight)
    assert found("non-finite-grad", model) is None
    weight.grad[0, 0] = float("nan")
    assert must_find("non-finite-grad", model).names == ("classifier.weight",)


def test_a_loss_that_is_not_finite() -> None:
    class Endless(Plain):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) + float("inf")

    assert must_find("non-finite-grad", Endless(), None, batch()).names == ()


def state_of(model: nn.Module) -> Any:
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        modes(model),
        {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        torch.get_rng_state().clone(),
        random.getstate(),
        np.random.get_state()[1].copy(),  # type: ignore[index]  # noqa: NPY002 - the global state is what may change
    )


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, np.ndarray):
        assert np.array_equal(first, second)
    elif isinstance(first, tuple) and first and not isinstance(first[0], int):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("mode", [True, False])
def test_everything_is_as_before(mode: bool) -> None:
    model = Plain().train(mode)
    fl.freeze(model, "embed, layers[0]")
    model(batch()).sum().backward()
    fired: list[Any] = []
    cast("Any", model.classifier.weight).register_post_accumulate_grad_hook(fired.append)
    gradient = model.classifier.weight.grad
    optimizer = adamw(model)
    before = state_of(model)

    check(model, optimizer, batch())

    assert_same(before, state_of(model))
    assert model.classifier.weight.grad is gradient
    assert not fired
    assert not optimizer.state
    model(batch()).sum().backward()
    assert fired


def test_everything_is_as_before_after_an_error() -> None:
    class Failing(Plain):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            super().forward(ids)
            self.seen = True
            raise ValueError("no such batch")

    model = Failing().train()
    model.blocks[0].eval()
    before = state_of(model)
    with pytest.raises(ValueError, match="no such batch"):
        check(model, None, batch())
    assert_same(before, state_of(model))
    assert not hasattr(model, "seen")


def test_a_table_that_a_forward_scales_is_as_before() -> None:
    model = Plain()
    model.embed = nn.Embedding(10, 4, max_norm=0.1)
    before = fl.fingerprint(model).whole
    check(model, None, batch())
    assert fl.fingerprint(model).whole == before


def test_what_a_forward_writes_is_as_before() -> None:
    """A momentum encoder: a frozen weight, a buffer and a list are written in the forward."""

    class Averaging(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.slow = nn.Linear(4, 2).requires_grad_(False)
            self.register_buffer("count", torch.zeros(1))
            self.losses: list[float] = []

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            result = super().forward(ids)
            with torch.no_grad():
                self.slow.weight.lerp_(self.classifier.weight, 0.1)
                cast("Any", self.count).add_(1)
            self.losses.append(float(result.detach().sum()))
            return result

    model = Averaging()
    fl.freeze(model, "embed")
    before = state(model)
    check(model, adamw(model), batch())
    assert state(model) == before
    assert model.losses == []
    model(batch())
    assert state(model) != before


def test_wrappers_are_looked_through() -> None:
    def refuse(*_: Any) -> Any:
        pytest.fail("it was compiled")

    compiled: Any = torch.compile(Broken(), backend=refuse)
    row = must_find("no-gradient", nn.DataParallel(compiled), None, batch())
    assert row.units == ("embeddings", "layer 0", "layer 1")
    assert row.names[0] == "module._orig_mod.embed.weight"


def test_ways_to_give_a_batch() -> None:
    model = Plain()
    for given in (batch(), (batch(),), [batch()], {"ids": batch()}):
        assert check(model, None, given).slugs == ()
    with pytest.raises(ModelError, match="gave a str, of which no gradient can be taken"):
        check(nn.Identity(), None, {"input": "text"})
