from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import frostline as fl
from tests.evidence.probing import PAIR, build, loss_of, moved, probe_of, real_step
from tests.evidence.states import state
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=False),
    "sgd foreach": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, foreach=False),
    "adamw foreach": partial(torch.optim.AdamW, lr=1e-3, amsgrad=True, foreach=True),
    "adamw fused": partial(torch.optim.AdamW, lr=1e-3, fused=True),
    "adafactor": partial(torch.optim.Adafactor, lr=1e-3),
    "tensor rate": partial(torch.optim.AdamW, lr=torch.tensor(1e-3), foreach=False),
}


class BrokenError(RuntimeError):
    """What the tests raise in the middle of a step."""


# Everything is put back


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["plain", "bert", "gpt2", "electra", "albert", "deberta-v2"]),
    name=st.sampled_from(sorted(OPTIMIZERS)),
    frozen=st.sampled_from([None, "embeddings", "backbone", "bias"]),
    mode=st.sampled_from(["eval", "train"]),
    steps=st.integers(0, 2),
    training=st.booleans(),
    grads=st.booleans(),
)
def test_everything_is_bit_identical_afterwards(
    kind: str, name: str, frozen: str | None, mode: Any, steps: int, training: bool, grads: bool
) -> None:
    model = build(kind)
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(steps):
        real_step(model, optimizer)
    if not grads:
        optimizer.zero_grad()
    if frozen is not None:
        fl.freeze(model, frozen, frozen_mode=mode)
    model.train(training)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    assert found.changes
    assert probe_of(model, optimizer) == found  # the random numbers are the same ones, too
    assert probe_of(model).copied_bytes > 0
    assert state(model, optimizer) == before


def test_it_says_what_a_real_step_does() -> None:
    model = build("bert")
    fl.freeze(model, "embeddings, layers[0]")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(5)
    found = probe_of(model, optimizer)
    torch.manual_seed(5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.train()
    real_step(model, optimizer)
    for parameter in found.parameters:
        now = model.get_parameter(parameter.name).detach()
        distance = (now - before[parameter.name]).double().norm()
        assert parameter.moved == bool(distance)
        assert parameter.distance == pytest.approx(float(distance), rel=1e-6)
        size = float(before[parameter.name].double().norm())
        if size:
            assert parameter.change == pytest.approx(float(distance) / size, rel=1e-6)
        else:
            assert parameter.change == (None if parameter.moved else 0.0)


class RaisingLinear(nn.Linear):
    """Fails in its forward, after the layers beneath it have run."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        raise BrokenError


class RaisingBackward(torch.autograd.Function):
    """Fails in the backward."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise BrokenError


class RaisingSGD(torch.optim.SGD):
    """Fails after its step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        raise BrokenError


@pytest.mark.parametrize("where", ["forward", "backward", "step", "loss"])
def test_everything_is_put_back_when_the_step_raises(where: str) -> None:
    model = build("plain")
    fl.freeze(model, "embeddings")
    if where == "forward":
        model.classifier = RaisingLinear(4, 2)
    if where == "backward":
        function = cast("Any", RaisingBackward)
        model.blocks[1].register_forward_hook(lambda module, given, output: function.apply(output))
    optimizer = (RaisingSGD if where == "step" else torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
    model.blocks[2].linear.weight.grad = torch.ones(4, 4)
    model.eval()

    def failing(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if where == "loss":
            raise BrokenError
        return F.cross_entropy(output, target)

    before = state(model, optimizer)
    with pytest.raises(BrokenError):
        fl.probe(model, PAIR, optimizer, loss=failing)
    assert state(model, optimizer) == before


class Restless(nn.Module):
    """Changes about everything that a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("table", torch.zeros(2))
        self.cache = torch.zeros(3)
        self.calls = 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        random.random()  # noqa: S311
        np.random.rand()  # noqa: NPY002
        self.calls += 1
        self.cache.add_(1)
        self.count.add_(1)  # type: ignore[operator]
        self.table = torch.ones(5)
        self.register_buffer("late", torch.ones(1))
        self.linear.weight.data.clamp_(-0.1, 0.1)
        hidden.mul_(2)
        return cast("torch.Tensor", self.linear(hidden).sum())


def test_what_a_forward_changes_beside_the_parameters() -> None:
    model, inputs = Restless(), torch.ones(3, 4)
    fl.freeze(model, "linear.weight", frozen_mode="train")
    before = state(model)
    found = fl.probe(model, inputs)
    assert state(model) == before
    assert (model.calls, model.cache.tolist(), inputs.tolist()) == (0, [0.0] * 3, [[1.0] * 4] * 3)
    assert not hasattr(model, "late")
    (weight, _) = found.parameters
    assert (weight.moved, weight.cause) == (True, "the forward writes into it")
    assert {name for unit in found.rows for name in unit.buffers_moved or ()} == {"count", "table"}


def test_a_scheduler_goes_on_as_if_nothing_had_been() -> None:
    model = build("plain")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = state(model, optimizer)
    probe_of(model, optimizer)
    assert state(model, optimizer) == before
    real_step(model, optimizer)
    scheduler.step()  # warns where the optimizer's step was not the first of the two
    assert scheduler.get_last_lr() == pytest.approx([0.01])


def test_two_runs_with_and_without_a_probe_are_the_same() -> None:
    losses: dict[bool, list[float]] = {}
    for probing in (False, True):
        model = build("bert")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(0)
        losses[probing] = []
        for _ in range(5):
            if probing:
                probe_of(model, optimizer)
            losses[probing].append(float(loss_of(model).detach()))
            real_step(model, optimizer)
    assert losses[True] == losses[False]


# Memory


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of what is cloned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cloned = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.clone.default:
            self.cloned += out.numel() * out.element_size()
        return out


def test_what_is_frozen_is_not_copied() -> None:
    model = tiny("bert", vocab_size=5000)
    optimizer = torch.optim.AdamW(model.parameters())
    real_step(model, optimizer)  # state for everything
    optimizer.zero_grad()
    fl.train_only(model, "head")
    head = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    with Allocations() as allocated:
        found = probe_of(model, optimizer)
    expected = 3 * head + 2 * 4 + buffers  # values, two momenta, a step counter of each of two tensors
    assert found.copied_bytes == expected
    everything = sum(parameter.nbytes for parameter in model.parameters())
    assert allocated.cloned < 0.05 * everything
    assert moved(found) == {"classifier.weight", "classifier.bias"}
