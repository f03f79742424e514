"""Moving the frost line: by dragging, by keys, by clicks; and copying what the page says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import frostline as fl
from frostline.runs.estimating import assumed_costs
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.page.conftest import Opened


@pytest.fixture
def bert(show_model: Callable[..., Opened]) -> Opened:
    """Embeddings, four layers, pooler, head; nothing is frozen."""
    return show_model(tiny("bert", meta=True, num_hidden_layers=4), height=1400)


def test_dragging(bert: Opened) -> None:
    line = bert.page.locator(".line")
    start, block = line.bounding_box(), bert.page.locator("[data-key=switch-2]").bounding_box()  # layer 1
    bert.page.mouse.move(start["x"] + 5, start["y"] + start["height"] / 2)
    bert.page.mouse.down()
    bert.page.mouse.move(start["x"] + 9, block["y"] + 2, steps=5)
    bert.page.mouse.up()
    assert bert.text("selector") == "embeddings, layers[:2]"
    assert line.get_attribute("aria-valuetext") == "Frozen up to layer 1"
    assert abs(line.bounding_box()["y"] + 8 - block["y"]) < 4
    assert bert.page.evaluate("getComputedStyle(document.querySelector('.line')).touchAction") == "none"


@pytest.mark.parametrize(
    ("keys", "selector"),
    [
        (["ArrowUp"], "embeddings"),
        (["ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown"], "embeddings, layers[0]"),
        (["End"], "all"),
        (["End", "ArrowDown"], "backbone"),
        (["PageUp", "Home"], "nothing is frozen"),
        (["ArrowDown"], "nothing is frozen"),
    ],
)
def test_keys(bert: Opened, keys: list[str], selector: str) -> None:
    bert.page.locator(".line").focus()
    for key in keys:
        bert.page.keyboard.press(key)
    assert bert.text("selector") == selector


def test_clicks_on_units_and_kinds(bert: Opened) -> None:
    bert.page.get_by_role("button", name="layer 2, ").first.click()
    assert bert.text("selector") == "layers[2]"
    assert bert.state(3) == "frozen"
    bert.page.get_by_role("button", name="bias").click()
    assert bert.text("selector") == "layers[2], bias"
    assert bert.state(2) == "partly"
    assert bert.page.locator("[data-key=bias]").get_attribute("aria-pressed") == "false"
    bert.page.get_by_role("button", name="Head only").click()
    assert bert.text("selector") == "backbone"
    bert.page.get_by_role("button", name="As given").click()
    assert bert.text("selector") == "nothing is frozen"


def test_the_keyboard_alone(bert: Opened) -> None:
    bert.page.locator("[data-key=switch-3]").focus()
    bert.page.keyboard.press("Enter")
    assert bert.text("selector") == "layers[2]"
    assert bert.page.evaluate("document.activeElement.dataset.key") == "switch-3"
    assert bert.text("look").startswith("layer 2: 2,224 parameters in 16 tensors")


def test_parameters_and_their_search(bert: Opened) -> None:
    bert.page.get_by_role("button", name="Parameters of layer 0").click()
    assert bert.page.locator("[data-part=list] li").count() == 16
    bert.page.locator("#search").fill("QUERY.weight")
    assert bert.page.locator("[data-part=list] li").count() == 4
    bert.page.get_by_label("train bert.encoder.layer.3.attention.self.query.weight").uncheck()
    assert bert.text("selector") == "bert.encoder.layer.3.attention.self.query.weight"
    assert bert.state(4) == "partly"


def test_copying(show_model: Callable[..., Opened]) -> None:
    opened = show_model(tiny("bert", meta=True), permissions=["clipboard-read", "clipboard-write"])
    opened.page.locator(".line").focus()
    opened.page.keyboard.press("ArrowUp")
    for name, text in (
        ("selector", "embeddings"),
        ("command", "frostline train --model MODEL --data train.csv --freeze embeddings"),
        ("python", 'import frostline as fl\n\nfl.freeze(model, "embeddings")'),
    ):
        button = opened.page.locator(f"[data-copy={name}]")
        button.click()
        is_done = "name => document.querySelector(`[data-copy=${name}]`).textContent == 'Copied'"
        opened.page.wait_for_function(is_done, arg=name)
        assert opened.page.evaluate("navigator.clipboard.readText()") == text


def test_eighty_layers_fold_and_open(show_model: Callable[..., Opened]) -> None:
    model = tiny("llama", meta=True, num_hidden_layers=80)
    fl.freeze(model, "embeddings, layers[:60]")
    opened = show_model(model)
    names = opened.page.locator(".block .name").all_text_contents()
    assert names == ["head", "norm", "layers 60–79 × 20", "layers 0–59 × 60", "embeddings"]
    opened.page.locator(".line").focus()
    opened.page.keyboard.press("ArrowUp")
    assert opened.text("selector") == "embeddings, layers[:61]"
    opened.page.get_by_role("button", name="Show layers 61–79 × 19 one by one").click()
    assert opened.page.locator(".block").count() == 4 + 19
    opened.page.get_by_label("fold equal layers").uncheck()
    assert opened.page.locator(".block").count() == 83


def test_two_stacks_have_a_line_each(show_model: Callable[..., Opened]) -> None:
    opened = show_model(tiny("t5", meta=True))
    assert opened.page.locator(".side h3").all_text_contents() == ["encoder", "decoder"]
    encoder = opened.page.get_by_role("slider", name="Frost line of the encoder")
    encoder.focus()
    opened.page.keyboard.press("End")
    assert opened.text("selector") == "encoder.layers[:], encoder.norm"
    opened.page.get_by_role("slider", name="Frost line of the decoder").focus()
    opened.page.keyboard.press("ArrowUp")
    terms = opened.text("selector").split(", ")
    assert sorted(terms) == ["decoder.layers[0]", "embeddings", "encoder.layers[:]", "encoder.norm"]


def test_heights_by_computation(show: Callable[..., Opened]) -> None:
    model = tiny("bert", meta=True, num_hidden_layers=4, vocab_size=9000)
    opened = show(fl.inspect(model).to_html(assumed_costs(model, "eval")))

    def height(unit: int) -> float:
        return float(opened.page.locator(f"[data-key=switch-{unit}]").bounding_box()["height"])

    assert height(0) > 4 * height(1)
    opened.page.get_by_label("height by").select_option("computation")
    assert height(0) < height(1) / 2


def test_what_is_new_and_frozen_is_said(show: Callable[..., Opened]) -> None:
    from frostline.anatomy.origin import Origin
    from frostline.evidence.inspect.inspection import inspect_model

    model = tiny("bert", meta=True)
    html = inspect_model(model, Origin("base", new=frozenset({"classifier.weight", "classifier.bias"}))).to_html()
    opened = show(html)
    assert opened.page.locator(".tag").all_text_contents() == ["new"]
    opened.page.get_by_role("button", name="head, ").click()
    assert "New and frozen, so it stays random: classifier.weight, classifier.bias." in opened.text("warnings")
    opened.page.locator(".line").focus()
    opened.page.keyboard.press("End")
    assert opened.text("warnings") == "Nothing trains: let something train, the head at least."
