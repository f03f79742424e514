"""Optimizers inside others, in hooks of the backward, and with closures, as the probe takes their steps."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

import frostline as fl
from frostline.errors import SettingsError
from frostline.evidence.optimizers import step_of_its_kind
from tests.evidence.probing import IDS, LABELS, TEXTS, build, loss_of, moved, probe_of, real_step
from tests.evidence.states import bits, state


class Lookahead:
    """Steps an optimizer, and pulls towards slow weights every second time; no optimizer of torch itself."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        self.param_groups = inner.param_groups
        self.slow = {"weights": [[p.detach().clone() for p in group["params"]] for group in inner.param_groups]}
        self.steps = 0

    @property
    def state(self) -> Any:
        return self.inner.state

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def step(self) -> None:
        self.inner.step()
        self.steps += 1
        for group, slow in zip(self.param_groups, self.slow["weights"], strict=True):
            for parameter, kept in zip(group["params"], slow, strict=True):
                kept.add_(parameter.detach() - kept, alpha=0.5)
                parameter.data.copy_(kept)


@pytest.mark.parametrize("steps", [0, 2])
def test_an_optimizer_inside_another(steps: int) -> None:
    model = build("bert")
    inner = torch.optim.AdamW(model.parameters(), lr=1e-3)
    outer = cast("Any", Lookahead(inner))
    for _ in range(steps):
        real_step(model, outer)
    before = (state(model, inner), bits(outer.slow))
    found = probe_of(model, outer)
    assert (state(model, inner), bits(outer.slow)) == before
    assert outer.steps == steps
    assert found.ok


@pytest.mark.parametrize("steps", [0, 2])
def test_optimizers_in_hooks_of_the_backward(steps: int) -> None:
    model = build("bert")
    optimizers = {p: torch.optim.AdamW([p], lr=1e-3) for p in model.parameters()}

    def hook(parameter: torch.Tensor) -> None:
        optimizers[cast("Any", parameter)].step()
        optimizers[cast("Any", parameter)].zero_grad()

    for parameter in model.parameters():
        cast("Any", parameter).register_post_accumulate_grad_hook(hook)
    for _ in range(steps):
        loss_of(model).backward()  # type: ignore[no-untyped-call]

    def everything() -> Any:
        return state(model), [(bits(one.state), bits(one.param_groups)) for one in optimizers.values()]

    before = everything()
    found = probe_of(model)
    assert everything() == before
    assert found.ok
    assert {row.learning_rates for row in found.rows} == {(1e-3,)}
    fl.check(model, None, TEXTS)
    assert everything() == before
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    assert everything() != before  # the hooks are still there


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_an_optimizer_that_needs_a_closure(steps: int, search: str | None) -> None:
    def closing(model: Any, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(cast("Any", closure))

    model = build("bert").train()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3, line_search_fn=search)
    for _ in range(steps):
        closing(model, optimizer)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert found.ok
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    closing(model, optimizer)  # the very step that was probed
    for row in found.parameters:
        distance = float((model.get_parameter(row.name).detach() - weights[row.name]).double().norm())
        assert row.distance == pytest.approx(distance, rel=1e-6)
    assert state(model, optimizer)["parameters"] != before["parameters"]


def test_a_closure_leaves_everything_as_it_was() -> None:
    model = build("plain")
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    before = state(model, optimizer)
    assert len(moved(probe_of(model, optimizer))) > 1
    assert state(model, optimizer) == before


def test_a_closure_and_a_scaler_are_refused() -> None:
    model = build("bert")
    before = state(model)
    with pytest.raises(SettingsError, match=r"^LBFGS needs a closure, which a gradient scaler cannot serve\."):
        probe_of(model, torch.optim.LBFGS(model.parameters()), scaler=torch.amp.GradScaler("cpu"))
    assert state(model) == before


@pytest.mark.parametrize("given", ["adamw", torch.optim.SGD, 0.1])
def test_what_is_no_optimizer_is_refused(given: Any) -> None:
    model = build("bert")
    for run in (lambda: probe_of(model, given), lambda: fl.check(model, given)):
        with pytest.raises(SettingsError, match=r"^The optimizer is .*, which holds no parameters\.\nGive a torch"):
            run()


def test_the_optimizer_of_another_model() -> None:
    model, other = build("plain"), build("plain")
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other(IDS)[torch.arange(4), LABELS].sum().backward()
    before = state(other, optimizer)
    found = probe_of(model, optimizer)
    assert state(other, optimizer) == before
    assert found.strangers == len(list(other.parameters()))
    assert moved(found) == set()


def test_a_step_of_its_kind_touches_nothing() -> None:
    model = build("plain")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    real_step(model, optimizer)
    before = state(model, optimizer)
    tensor = torch.nn.Parameter(torch.ones(2))
    tensor.grad = torch.ones(2)
    options = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    assert step_of_its_kind(optimizer, options, [tensor], {})
    assert tensor.tolist() == pytest.approx([1 - 0.1 * 0.01 - 0.1] * 2)
    assert state(model, optimizer) == before
    assert not step_of_its_kind(torch.optim.LBFGS([tensor]), {}, [tensor], {})
