"""What a forward changes in the Python objects of a model is put back, by the probe and by the checks."""

from __future__ import annotations

import itertools
import random
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from torch import nn

import frostline as fl
from frostline.base.logging import get_logger
from tests.evidence.states import state

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = torch.ones(3, 4)


@dataclass(slots=True)
class Slotted:
    count: int = 0


@dataclass
class Memory:
    """A plain object that a module keeps something in."""

    seen: list[int] = field(default_factory=list)
    slotted: Slotted = field(default_factory=Slotted)


class Holder(nn.Module):
    """Runs something on itself in each forward."""

    def __init__(self, held: Any, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.held = held
        self._change = change

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self._change(self.held)
        return cast("torch.Tensor", self.linear(hidden).sum())


def change_memory(memory: Memory) -> None:
    memory.seen.append(1)
    memory.slotted.count += 1
    memory.late = 1  # type: ignore[attr-defined]


class Draws:
    """An iterator of one's own, which says in its attributes where it stands."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Draws:
        return self

    def __next__(self) -> int:
        self.at += 1
        return self.at


# What is held, what the forward does with it, and how it is looked at.
CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1], lambda held: held.append(2), list),
    "dict": (lambda: {"a": 1}, lambda held: held.update(b=2), dict),
    "order": (lambda: OrderedDict(a=1, b=2), lambda held: held.move_to_end("a"), list),
    "set": (lambda: {1}, lambda held: held.add(2), set),
    "deque": (lambda: deque([1], maxlen=1), lambda held: held.append(2), list),
    "bytes": (lambda: bytearray(b"a"), lambda held: held.extend(b"b"), bytes),
    "nested": (lambda: ({"a": [[1]]},), lambda held: held[0]["a"][0].append(2), repr),
    "tensor": (lambda: {"a": [torch.zeros(2)]}, lambda held: held["a"][0].add_(1), repr),
    "array": (lambda: np.zeros(2), lambda held: held.__iadd__(1), repr),
    "object": (Memory, change_memory, lambda held: (repr(held), vars(held).keys() - {"seen", "slotted"})),
    "own iterator": (Draws, next, lambda held: held.at),
    "generator": (
        lambda: [torch.Generator().manual_seed(1)],
        lambda held: torch.rand(2, generator=held[0]),
        lambda held: held[0].get_state().tolist(),
    ),
    "random": (lambda: random.Random(1), lambda held: held.random(), lambda held: held.getstate()),  # noqa: S311
    "numpy": (
        lambda: np.random.default_rng(1),
        lambda held: held.random(),
        lambda held: repr(held.bit_generator.state),
    ),
    "old numpy": (lambda: np.random.RandomState(1), lambda held: held.rand(), lambda held: repr(held.get_state())),
    "module": (lambda: [nn.Linear(2, 2)], lambda held: held[0].weight.data.mul_(2), lambda held: repr(state(held[0]))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_module_holds(name: str) -> None:
    make, change, look = CHANGES[name]
    model = Holder(make(), change)
    held, before = model.held, look(model.held)
    for run in (lambda: fl.probe(model, INPUTS), lambda: fl.check(model, None, INPUTS)):
        run()
        assert model.held is held
        assert look(held) == before
    model(INPUTS)
    assert look(held) != before  # so the forward does change it


def test_a_gradient_of_a_parameter_in_a_list() -> None:
    hidden = nn.Parameter(torch.ones(4))

    class Sly(Holder):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden * self.held[0])

    model = Sly([hidden], lambda _: None)
    fl.probe(model, INPUTS)
    assert hidden.grad is None
    hidden.grad = torch.ones(4)
    fl.check(model, None, INPUTS)
    assert hidden.grad.tolist() == [1.0] * 4


def test_attributes_of_parameters() -> None:
    model = Holder(None, lambda _: setattr(model.linear.weight, "seen", 1))
    fl.probe(model, INPUTS)
    assert not hasattr(model.linear.weight, "seen")


def test_what_cannot_be_put_back_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(get_logger(), "warning", lambda text, *values: said.append(text % values))
    for run in (lambda model: fl.probe(model, INPUTS), lambda model: fl.check(model, None, INPUTS)):
        run(Holder(itertools.count(), next))
        assert said == ["Holder holds a count: if the step advances it, it cannot be put back."]
        said.clear()
        run(Holder([1], lambda _: None))
        assert said == []


def test_a_tensor_made_for_inference() -> None:
    with torch.inference_mode():
        table = torch.ones(4)
    fl.probe(Holder({"table": table}, lambda held: held["table"].sum()), INPUTS)
    assert table.tolist() == [1.0] * 4


def test_a_list_that_refers_to_itself() -> None:
    knot: list[Any] = [1]
    knot.append(knot)
    fl.probe(Holder(knot, lambda held: held.append(3)), INPUTS)
    assert len(knot) == 2


def test_sparse_tensors_beside_the_buffers() -> None:
    sparse = torch.eye(2).to_sparse()
    fl.probe(Holder([sparse], lambda held: held[0].mul_(3)), INPUTS)
    assert sparse.to_dense().tolist() == torch.eye(2).tolist()
