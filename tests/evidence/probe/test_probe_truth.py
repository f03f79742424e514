from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import frostline as fl
from tests.evidence.probing import build, moved, probe_of, real_step, row
from tests.evidence.states import state

# Truth before flags


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"momentum": 0.9}])
def test_a_frozen_parameter_with_an_old_gradient_moves(options: dict[str, Any]) -> None:
    model = build("bert")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    real_step(model, optimizer)
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.zero_()  # what zero_grad(set_to_none=False) leaves
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    unit = row(found, "embeddings")
    assert (unit.trainable, unit.gradient, unit.moved) == ("no", ("stale",), "yes")
    assert not found.ok
    assert "frozen by flag, but moved (the optimizer holds it, and it keeps an old gradient): " in found.verdict


class DecaysAll(torch.optim.SGD):
    """Decays what has no gradient, too."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.9)


class MovesItself(torch.optim.SGD):
    """Gives its parameters other memory."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data * 0.5


@pytest.mark.parametrize("kind", [DecaysAll, MovesItself])
def test_an_optimizer_that_moves_what_has_no_gradient(kind: type[torch.optim.SGD]) -> None:
    model = build("plain")
    fl.freeze(model, "embeddings")
    optimizer = kind(model.parameters(), lr=0.1)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    (surprise,) = found.surprises
    assert (surprise.name, surprise.cause) == ("embed.weight", "the optimizer moves it without a gradient")


class MovesOthers(torch.optim.SGD):
    """Moves what it does not hold, as an averaged copy that is kept in the step."""

    other: torch.Tensor

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        with torch.no_grad():
            self.other.mul_(0.9)


@pytest.mark.parametrize("stale", [False, True])
def test_an_optimizer_that_moves_what_it_does_not_hold(stale: bool) -> None:
    model = build("plain")
    fl.freeze(model, "embeddings")
    optimizer = MovesOthers([p for p in model.parameters() if p.requires_grad], lr=0.1)
    optimizer.other = model.embed.weight
    model.embed.weight.grad = torch.ones_like(model.embed.weight) if stale else None
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    (surprise,) = (one for one in found.surprises if one.moved)
    said = "something writes into it during the optimizer's step, though the optimizer does not hold it"
    assert (surprise.moved_in, surprise.cause) == ("step", said)


def test_what_moves_in_the_backward() -> None:
    model = build("plain")
    fl.freeze(model, "embeddings")
    model.classifier.weight.register_hook(lambda _: setattr(model.embed.weight, "data", model.embed.weight * 2))
    before = state(model)
    found = probe_of(model)
    assert state(model) == before
    (surprise,) = (one for one in found.surprises if one.moved)
    assert (surprise.moved_in, surprise.cause) == ("backward", "something writes into it during the backward")


def test_a_write_that_changes_nothing_is_no_cause() -> None:
    """The forward writes the same values, and the optimizer moves the weight: only the second is told."""
    model = build("plain")
    fl.freeze(model, "embeddings")
    model.blocks[0].register_forward_hook(lambda *_: model.embed.weight.data.mul_(1)[:0].tolist() or None)
    found = probe_of(model, DecaysAll(model.parameters(), lr=0.1))
    (surprise,) = (one for one in found.surprises if one.moved)
    assert (surprise.moved_in, surprise.cause) == ("step", "the optimizer moves it without a gradient")


def test_steps_below_the_resolution_of_the_weights() -> None:
    model = build("bert").to(torch.bfloat16)
    found = probe_of(model, torch.optim.SGD(model.parameters(), lr=1e-7))
    lost = {parameter.name: parameter.cause for parameter in found.surprises}
    assert lost["bert.pooler.dense.weight"] == "the change is lost to rounding in bfloat16"
    assert row(found, "pooler").gradient == ("yes",)


def test_what_the_optimizer_does_not_hold() -> None:
    model = build("bert")
    optimizer = torch.optim.SGD(model.classifier.parameters(), lr=0.1)
    optimizer.add_param_group({"params": [torch.zeros(2)]})
    found = probe_of(model, optimizer)
    assert moved(found) == {"classifier.weight", "classifier.bias"}
    assert {parameter.cause for parameter in found.surprises} == {"not in the optimizer"}
    assert row(found, "layer 1").in_optimizer == "no"
    assert row(found, "layer 1").learning_rates == ()
    assert row(found, "head").learning_rates == (0.1,)
    assert found.strangers == 1
    assert "The optimizer holds 1 tensors that are not the model's: build it anew." in str(found)


def test_a_rate_of_zero_and_no_gradient() -> None:
    model = build("bert")
    model.classifier.extra = nn.Linear(2, 2)
    groups = [
        {"params": model.bert.parameters(), "lr": 0.0},
        {"params": model.classifier.parameters()},
    ]
    found = probe_of(model, torch.optim.SGD(groups, lr=0.1))
    causes = {parameter.name: parameter.cause for parameter in found.surprises}
    assert causes.pop("classifier.extra.weight") == "no gradient"
    assert causes.pop("classifier.extra.bias") == "no gradient"
    assert set(causes.values()) == {"learning rate 0"}
    assert row(found, "head").moved == "partly"
    assert row(found, "head").gradient == ("yes", "none")


def test_everything_frozen() -> None:
    model = build("bert")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = probe_of(model)
    assert found.verdict == "A step changes none of the 41 parameter tensors."
    assert found.optimizer == "none, since nothing trains"
    assert found.ok
    held = probe_of(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert moved(held) == set()


@pytest.mark.parametrize(("mode", "count"), [("eval", 0), ("train", 9)])
def test_pinned_modules_stay_in_eval_mode(mode: Any, count: int) -> None:
    model = build("plain")
    fl.freeze(model, "backbone", frozen_mode=mode)
    seen: list[bool] = []
    model.blocks[0].register_forward_hook(lambda module, *_: seen.append(module.training))
    found = probe_of(model.eval())
    assert seen == [mode == "train"]
    assert sum(len(unit.buffers_moved or ()) for unit in found.rows) == count


def test_tied_weights_count_once() -> None:
    model = build("bert")
    model.classifier.weight = nn.Parameter(model.bert.pooler.dense.weight[:2].detach().clone())
    model.classifier.twin = nn.Linear(16, 16)
    model.classifier.twin.weight = model.bert.pooler.dense.weight
    before = state(model)
    found = probe_of(model)
    assert state(model) == before
    names = [parameter.name for parameter in found.parameters]
    assert names.count("bert.pooler.dense.weight") == 1
    assert "classifier.twin.weight" not in names
