from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

import frostline as fl
from frostline.report.svg import tower_svg
from tests.models import tiny

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - it is ours


def test_units_from_the_head_down_with_what_they_do() -> None:
    model = tiny("bert", meta=True, num_hidden_layers=5)
    fl.freeze(model, "embeddings, layers[:3], bert.pooler.dense.bias")
    said = texts(fl.inspect(model).to_svg())
    assert said[::2] == ["head", "pooler", "layers 3–4 × 2", "layers 0–2 × 3", "embeddings"]
    assert [text.split(" · ")[0] for text in said[1::2]] == ["trains", "partly frozen", "trains", "frozen", "frozen"]


def test_two_stacks_stand_side_by_side() -> None:
    root = ET.fromstring(fl.inspect(tiny("bart", meta=True)).to_svg())  # noqa: S314 - it is ours
    lefts = {
        element.text: float(element.attrib["x"])
        for element in root.iter(f"{SVG}text")
        if element.attrib["text-anchor"] == "start"
    }
    assert lefts["encoder layers 0–1 × 2"] < lefts["decoder layers 0–2 × 3"]
    assert lefts["embeddings"] == lefts["encoder layers 0–1 × 2"] == lefts["head"]
    bottom = max(float(rect.attrib["y"]) + float(rect.attrib["height"]) for rect in root.findall(f"{SVG}rect"))
    assert bottom < float(root.attrib["height"])


def test_marks_take_the_place_of_flags() -> None:
    tower = fl.inspect(tiny("bert", meta=True)).tower.to_dict()
    marks = [{"level": "0", "text": "identical"} for _ in tower["units"]]
    said = texts(tower_svg(tower, marks))
    assert all(text.startswith("identical") for text in said[1::2])


@pytest.mark.parametrize("alone", [True, False])
def test_a_style_only_where_it_stands_alone(alone: bool) -> None:
    svg = tower_svg(fl.inspect(tiny("bert", meta=True)).tower.to_dict(), alone=alone)
    assert ("<style>" in svg) is alone
