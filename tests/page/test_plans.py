"""The page's figures and selectors are Python's, for plans that are reached by random clicks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from torch import nn

import frostline as fl
from frostline.engine.cost.costs import Rates
from frostline.plan.describe import describe
from frostline.plan.phase_on_model import compile_schedule
from frostline.plan.schedule_file import read_schedule
from frostline.runs import estimating
from tests.models import Plain, tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from frostline.runs.estimate_result import Estimate
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


def random_plans(opened: Opened, twin: Twin, seed: str) -> Iterator[None]:
    """Click the page from one plan to the next."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    opened.page.get_by_label("fold equal layers").uncheck()
    opened.page.locator("#search").fill("e")  # of every parameter drawn here there is a row, or there is none to click
    for _ in range(PLANS):
        for _ in range(draw.randint(1, 4)):
            key = twin.step(draw)
            if opened.page.locator(f"[data-key='{key}']").count() == 0:
                name = twin.names[int(key.removeprefix("parameter-"))]
                opened.page.locator("#search").fill(name)
            opened.click(key)
        yield


@pytest.mark.parametrize("kind", MODELS)
def test_random_plans(show_model: Callable[..., Opened], tmp_path: Path, kind: str) -> None:
    model = MODELS[kind]()
    twin, opened = Twin(model), show_model(model)
    file = tmp_path / "plan.toml"
    for _ in random_plans(opened, twin, kind):
        twin.compare(opened)
        if twin.frozen:
            assert set(fl.select(model, opened.text("selector")).names) == twin.frozen
        if twin.frozen != set(twin.names):
            file.write_text(opened.text("toml"), encoding="utf-8")
            (phase,) = compile_schedule(model, read_schedule(file))
            assert phase.trains == set(twin.names) - twin.frozen


def estimated(model: nn.Module, store: Literal["memory", "off"], dtype: Literal["fp32", "bf16"]) -> Estimate:
    return fl.estimate(
        model, rows=200, tokens=20, epochs=2, batch_size=8, dtype=dtype, flops=1e10, bandwidth=1e8, store=store
    )


@pytest.mark.parametrize(("kind", "dtype"), [("bert", "fp32"), ("t5", "bf16"), ("plain", "fp32")])
def test_times_and_activations_are_those_of_an_estimate(
    show: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch, kind: str, dtype: Literal["fp32", "bf16"]
) -> None:
    model = MODELS[kind]()
    speeds = estimated(model, "off", dtype).speeds
    # Each a figure of its own, as where they are measured, so that none is taken for another.
    rest = ("last", "lowest", "layer", "embeddings", "fill_layer", "fill_last", "fill_embeddings", "head")
    measured = replace(
        speeds,
        **{name: (place + 3) * 1e-5 for place, name in enumerate(rest)},  # type: ignore[arg-type]
        anew=1.3,
        head_token_bytes=3.0,
        head_row_bytes=70.0,
        token_bytes=40.0,
        memory=Rates(4e5, 7e5),
        one_position=kind == "bert",
    )
    monkeypatch.setattr(estimating, "_speeds", lambda *_: (measured, []))
    twin, opened = Twin(model), show(estimated(model, "memory", dtype).to_html())
    for _ in random_plans(opened, twin, kind):
        for name, parameter in twin.parameters.items():
            parameter.requires_grad_(name not in twin.frozen)
        if twin.frozen == set(twin.names):
            assert opened.text("epoch") == "–"
            continue
        with_store, without = estimated(model, "memory", dtype).plan, estimated(model, "off", dtype).plan
        assert abs(opened.value("activations") - without.memory.activations) <= 1
        assert float(opened.attribute("anew")) == pytest.approx(without.times.epoch, rel=1e-9)
        if with_store.choice is None:
            assert opened.text("stored") == "nothing to store"
            continue
        assert float(opened.attribute("stored")) == pytest.approx(with_store.times.epoch, rel=1e-9)
        assert float(opened.attribute("fill")) == pytest.approx(with_store.times.fill, rel=1e-9)


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
