from __future__ import annotations

from typing import Any, cast

import pytest
import torch

import frostline as fl
from frostline.evidence.checks.backward_pass import try_batch
from tests.evidence.checks.cases import adamw, found, must_find
from tests.evidence.states import state
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


# Gradients of 0

ROWS = batch(length=3)  # no two rows alike, which a BatchNorm would make zeros of


def hooked(*prefixes: str) -> Plain:
    """A model in which hooks make the gradients of some parameters 0."""
    model = Plain()
    for name, parameter in model.named_parameters():
        if name.startswith(prefixes):
            cast("Any", parameter).register_hook(lambda gradient: gradient * 0)
    return model


def test_gradient_always_zero() -> None:
    model = hooked("embed.", "blocks.0.")
    optimizer = adamw(model)
    row = must_find("gradient-always-zero", model, optimizer, ROWS)
    assert (row.severity, row.units) == ("warning", ("embeddings", "layer 0"))
    assert {"embed.weight", "blocks.0.linear.weight", "blocks.0.norm.weight"} <= set(row.names)
    assert all(name.startswith(("embed.", "blocks.0.")) for name in row.names)
    before = model.embed.weight.detach().clone()
    model(ROWS).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.embed.weight)  # so it is a fault indeed

    assert found("gradient-always-zero", model, optimizer) is None
    assert found("gradient-always-zero", model, None, ROWS) is None
    assert found("gradient-always-zero", model, adamw(model, weight_decay=0.0), ROWS) is None  # nothing moves it
    plain = Plain()
    assert found("gradient-always-zero", plain, adamw(plain), ROWS) is None


@pytest.mark.parametrize("hook", ["backward", "backward_pre", "output"])
def test_a_hook_on_a_module(hook: str) -> None:
    model = Plain()
    if hook == "backward":
        model.blocks[1].register_full_backward_hook(lambda _, inputs, __: tuple(map(torch.zeros_like, inputs)))
    elif hook == "backward_pre":
        model.blocks[0].register_full_backward_pre_hook(lambda _, outputs: tuple(map(torch.zeros_like, outputs)))
    else:
        model.blocks[0].register_forward_hook(lambda _, __, output: output.register_hook(torch.zeros_like) and None)
    row = must_find("gradient-always-zero", model, adamw(model), ROWS)
    assert row.units == ("embeddings", "layer 0")


def test_a_head_of_zeros_is_no_fault() -> None:
    model = Plain()
    torch.nn.init.zeros_(model.classifier.weight)
    assert found("gradient-always-zero", model, adamw(model), ROWS) is None
    hidden = hooked("embed.")  # behind it, a fault is found all the same
    torch.nn.init.zeros_(hidden.classifier.weight)
    assert must_find("gradient-always-zero", hidden, adamw(hidden), ROWS).names == ("embed.weight",)


def test_what_the_output_does_not_depend_on_is_no_fault() -> None:
    """Its gradient is 0 because it has no part in this batch."""

    class Routed(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            hidden = self.blocks(self.embed(ids).mean(dim=1))
            hidden = self.experts[0](hidden) + 0 * self.experts[1](hidden)
            result: torch.Tensor = self.classifier(self.final_norm(hidden))
            return result

    model = Routed()
    trial = try_batch(model, ROWS)
    assert {"experts.1.weight", "experts.1.bias"} <= trial.zero
    assert found("gradient-always-zero", model, adamw(model), ROWS) is None


class Ranked(Plain):
    """Each row goes through the one of two experts that a router ranks first, at full weight."""

    def __init__(self) -> None:
        super().__init__()
        self.router = torch.nn.Linear(4, 2)
        self.experts = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(ids).mean(dim=1)
        gates, chosen = self.router(hidden).softmax(dim=-1).max(dim=-1)
        both = torch.stack([expert(hidden) for expert in self.experts], dim=1)  # (rows, experts, 4)
        hidden = both[torch.arange(len(ids)), chosen] * (gates * 0 + 1).unsqueeze(1)
        result: torch.Tensor = self.classifier(self.final_norm(hidden))
        return result


def test_a_choice_by_rank_has_no_slope_and_is_no_fault() -> None:
    model = Ranked()
    assert {"router.weight", "router.bias"} <= try_batch(model, ROWS).zero
    outputs = []
    for bias in (9.0, -9.0):
        torch.nn.init.constant_(model.router.bias[:1], bias)
        outputs.append(model(ROWS))
    assert not torch.equal(*outputs)  # though the output depends on it
    torch.nn.init.zeros_(model.router.bias)
    assert found("gradient-always-zero", model, adamw(model), ROWS) is None


def test_behind_dropout() -> None:
    """Narrow layers with much dropout, which may hide by chance what lies beneath: it is drawn anew."""
    for seed in range(5):
        torch.manual_seed(seed)
        model = hooked("embed.")
        assert must_find("gradient-always-zero", model, adamw(model), ROWS).names == ("embed.weight",)


def test_what_was_tried_is_put_back() -> None:
    model = hooked("embed.", "blocks.0.").train()
    optimizer = adamw(model)
    before, drawn = state(model), torch.get_rng_state()
    assert found("gradient-always-zero", model, optimizer, ROWS) is not None
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not optimizer.state


def test_where_each_call_gives_something_else_nothing_is_said() -> None:
    class Counting(Plain):
        calls = 0.0

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            self.calls += 1.0
            return super().forward(ids) + self.calls

    model = Counting()
    cast("Any", model.embed.weight).register_hook(torch.zeros_like)
    assert found("gradient-always-zero", model, adamw(model), ROWS) is None
