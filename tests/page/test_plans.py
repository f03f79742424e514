"""The page's figures and selectors are Python's, for plans that are reached by random clicks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import frostline as fl
from frostline.plan.describe import describe
from tests.models import Plain, tiny

if TYPE_CHECKING:
    from tests.page.conftest import Opened

PLANS = 50


class Twin:
    """The plan that a page must stand at, kept by what was clicked."""

    def __init__(self, model: nn.Module) -> None:
        self.anatomy = fl.ModelMap.of(model)
        self.parameters = dict(model.named_parameters())
        self.names = self.anatomy.parameter_names
        self.frozen: set[str] = set()

    def toggle(self, names: list[str]) -> None:
        """Freeze names, or let them train where all are frozen."""
        if self.frozen.issuperset(names):
            self.frozen -= set(names)
        else:
            self.frozen |= set(names)

    def step(self, draw: random.Random) -> str:
        """Draw something to click; gives its key."""
        units = [(place, unit) for place, unit in enumerate(self.anatomy.units) if unit.parameter_names]
        kinds = {kind: names for kind, names in self.anatomy.kinds.items() if names}
        if kinds and draw.random() < 0.2:
            kind = draw.choice(sorted(kinds))
            self.toggle(sorted(kinds[kind]))
            return kind
        place, unit = draw.choice(units)
        if draw.random() < 0.7:
            self.toggle(list(unit.parameter_names))
            return f"switch-{place}"
        name = draw.choice(unit.parameter_names)
        self.toggle([name])
        return f"parameter-{self.names.index(name)}"

    def compare(self, opened: Opened) -> None:
        """Compare all that the page says of the plan."""
        trained = [self.parameters[name] for name in self.names if name not in self.frozen]
        gradients = sum(one.numel() * one.element_size() for one in trained)
        assert opened.text("selector") == (describe(self.anatomy, self.frozen) or "nothing is frozen")
        assert opened.value("trainable") == sum(one.numel() for one in trained)
        assert opened.value("gradients") == gradients
        assert opened.value("optimizer") == 2 * gradients + 4 * len(trained)


def odd() -> nn.Module:
    """Names that the language reads otherwise."""
    model = nn.Module()
    for name in ("bias", "head", "a,b", " c", "~e", "re:f", "g*", "é"):
        model.register_parameter(name, nn.Parameter(torch.zeros(2)))
    model.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: tiny("bert", meta=True, num_hidden_layers=5),
    "bart": lambda: tiny("bart", meta=True),
    "t5": lambda: tiny("t5", meta=True),
    "plain": Plain,
    "odd": odd,
}


@pytest.mark.parametrize("kind", MODELS)
def test_random_plans(show_model: Callable[..., Opened], kind: str) -> None:
    model = MODELS[kind]()
    twin, draw = Twin(model), random.Random(kind)  # noqa: S311 - no secret
    opened = show_model(model)
    opened.page.get_by_label("fold equal layers").uncheck()
    opened.page.locator("#search").fill("e")  # of every parameter drawn here there is a row, or there is none to click
    for _ in range(PLANS):
        for _ in range(draw.randint(1, 4)):
            key = twin.step(draw)
            if opened.page.locator(f"[data-key='{key}']").count() == 0:
                name = twin.names[int(key.removeprefix("parameter-"))]
                opened.page.locator("#search").fill(name)
            opened.click(key)
        twin.compare(opened)
        if twin.frozen:
            assert set(fl.select(model, opened.text("selector")).names) == twin.frozen


def test_the_optimizers_state_is_that_of_adamw(show_model: Callable[..., Opened]) -> None:
    model = tiny("bert")
    fl.freeze(model, "embeddings, layers[0]")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values()]
    opened = show_model(model)
    assert opened.value("optimizer") == sum(value.numel() * value.element_size() for value in kept)
    buffers = sum(value.numel() * value.element_size() for value in model.buffers())
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    assert opened.value("weights") == weights + buffers
