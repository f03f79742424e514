from __future__ import annotations

from typing import Any, cast

import pytest
import torch

import frostline as fl
from tests.evidence.checks.cases import adamw, found, must_find
from tests.models import Plain, batch


def trained() -> tuple[Plain, torch.optim.Optimizer]:
    model = Plain()
    optimizer = adamw(model)
    model(batch()).sum().backward()
    optimizer.step()
    return model, optimizer


def test_stale_grad() -> None:
    model, optimizer = trained()
    assert found("stale-grad", model, optimizer) is None
    model.embed.weight.requires_grad_(False)
    row = must_find("stale-grad", model, optimizer)
    assert (row.severity, row.names, row.units) == ("error", ("embed.weight",), ("embeddings",))
    before = model.embed.weight.clone()
    optimizer.step()
    assert not torch.equal(before, model.embed.weight)  # so it is a fault indeed
    assert must_find("stale-grad", model).severity == "note"
    model.embed.weight.grad = None
    assert found("stale-grad", model, optimizer) is None


def test_fl_freeze_leaves_no_stale_grad() -> None:
    model, optimizer = trained()
    fl.freeze(model, "embed")
    assert found("stale-grad", model, optimizer) is None


def test_a_stale_grad_outside_the_optimizer() -> None:
    model, _ = trained()
    model.embed.weight.requires_grad_(False)
    assert found("stale-grad", model, adamw(model)) is None


class Decaying(torch.optim.Optimizer):
    """Decays all that it holds, gradient or not."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - group["lr"])
                self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1


def test_decay_without_grad() -> None:
    model = Plain()
    optimizer = Decaying(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    optimizer.register_step_pre_hook(lambda *_: pytest.fail("a hook ran"))
    assert found("decay-without-grad", model, optimizer) is None
    fl.freeze(model, "embed")
    before = fl.fingerprint(model).whole
    row = must_find("decay-without-grad", model, optimizer)
    assert (row.severity, row.names) == ("error", ("embed.weight",))
    assert fl.fingerprint(model).whole == before
    assert not optimizer.state


@pytest.mark.parametrize(
    "kind",
    [
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "ASGD",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
        "SGD",
    ],
)
def test_the_optimizers_of_torch_leave_it_alone(kind: str) -> None:
    model = Plain()
    fl.freeze(model, "backbone")
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1)
    assert found("decay-without-grad", model, optimizer) is None


def test_the_optimizer_of_transformers_leaves_it_alone() -> None:
    from transformers.optimization import Adafactor

    model = Plain()
    fl.freeze(model, "backbone")
    optimizer = cast("Any", Adafactor)(model.parameters(), lr=0.1, relative_step=False, weight_decay=0.1)
    assert found("decay-without-grad", model, optimizer) is None


def test_an_optimizer_that_cannot_be_tried() -> None:
    model = Plain()
    fl.freeze(model, "backbone")
    assert found("decay-without-grad", model, torch.optim.LBFGS(model.parameters())) is None


def test_an_optimizer_inside_another_is_never_stepped() -> None:
    """A wrapper's step is that of the optimizer that holds the real parameters."""

    class Outer(torch.optim.SGD):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            super().__init__([parameter for group in inner.param_groups for parameter in group["params"]], lr=0.1)
            self.inner = inner

        def step(self, closure: Any = None) -> Any:
            return self.inner.step()

    model = Plain()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    fl.freeze(model, "embeddings")
    before = fl.fingerprint(model)
    fl.check(model, Outer(torch.optim.AdamW(model.parameters(), lr=0.1)))
    assert fl.fingerprint(model) == before
