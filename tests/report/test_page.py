"""What a page is made of: escaped, closed to the outside, and small."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from torch import nn

import frostline as fl
from frostline.report.page import embedded, fragment
from frostline.report.svg import tower_svg
from tests.models import tiny

EVIL = "</script><script>alert(1)</script><!-- ' \" & <b> \u202e\x1b\u2028"


class Elements(HTMLParser):
    """Every element with its attributes, and the text right in it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"after {tag}", {}, []))

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1][2].append(data)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(texts)) for name, attributes, texts in self.found if name == tag]


def hostile() -> nn.Module:
    """A model whose module has the worst name that torch takes."""
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
    model.add_module(EVIL, nn.Linear(2, 2).requires_grad_(False))
    return model


@pytest.fixture(scope="module")
def page() -> Elements:
    return Elements(fl.inspect(hostile()).to_html())


def test_its_script_and_style_are_ours_alone(page: Elements) -> None:
    (policy,) = [given["content"] or "" for given, _ in page.of("meta") if "http-equiv" in given]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    scripts = page.of("script")
    assert [given["type"] for given, _ in scripts] == ["application/json", "module"]
    for kind, (_, text) in (("script", scripts[1]), ("style", page.of("style")[0])):
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_a_hostile_name_stays_text(page: Elements) -> None:
    assert len(page.of("script")) == 2
    assert not page.of("b")
    data = json.loads(page.of("script")[0][1])
    names = [row[0] for unit in data["tower"]["units"] for row in unit["parameters"]]
    assert f"{EVIL}.weight" in names


def test_it_names_nothing_outside(page: Elements) -> None:
    leading = {"src", "href", "action", "style"}
    places = [value for _, given, _ in page.found for name, value in given.items() if name in leading]
    assert places == ["data:,"]


@pytest.mark.parametrize("value", [EVIL, {"a": [EVIL, float("nan")]}, "<!--", "]]>"])
def test_json_cannot_end_its_element(value: Any) -> None:
    text = embedded(value)
    assert not re.search(r"[<>&\u2028\x1b]", text)
    assert json.loads(text) == (value if not isinstance(value, dict) else {"a": [EVIL, None]})


def test_what_a_notebook_shows_has_no_script() -> None:
    found = fl.inspect(hostile())
    text = found._repr_html_()
    elements = Elements(text)
    tags = {tag for tag, _, _ in elements.found if not tag.startswith("after ")}
    assert tags <= {"div", "p", "svg", "defs", "pattern", "rect", "text"}
    assert found.verdict in "".join(text for _, text in elements.of("p"))
    hostile_text = fragment(EVIL, tower_svg(found.tower.to_dict()), [EVIL])
    assert hostile_text.count("&lt;script&gt;") == 2
    assert "<script" not in hostile_text
    assert hostile_text.count("\\u202e\\x1b\\u2028") == 2
    assert not {"\u202e", "\x1b", "\u2028"} & set(hostile_text)


def test_a_page_is_small() -> None:
    large = tiny("llama", meta=True, num_hidden_layers=80)
    text = fl.inspect(large).to_html()
    assert len(text.encode()) < 300_000
    assert "layers 0–79 × 80" in text
