from __future__ import annotations

import sys
from xml.etree import ElementTree as ET

import pytest

from frostline.errors import MissingExtraError
from frostline.report.charts import curves, inline

SVG = "{http://www.w3.org/2000/svg}"
LINES = {"training": [(0.5, 2.0), (1.0, 1.0)], "evaluation <b>$x$": [(1.0, 1.5)]}


def test_curves_need_no_style_sheet() -> None:
    pytest.importorskip("matplotlib")
    text = curves("Loss <by> epoch", LINES)
    root = ET.fromstring(text)  # noqa: S314 - it is ours
    assert root.attrib["aria-label"] == "Loss <by> epoch"
    assert not list(root.iter(f"{SVG}style"))
    assert not [element for element in root.iter() if "style" in element.attrib]
    strokes = {element.attrib.get("stroke") for element in root.iter()}
    assert {"var(--curve-1)", "var(--curve-2)"} <= strokes
    said = {element.text for element in root.iter(f"{SVG}text")}
    assert {"training", "evaluation <b>$x$", "epoch"} <= said
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'frostline\[plot\]'"):
        curves("Loss", LINES)


def test_bands_stand_behind_the_lines() -> None:
    pytest.importorskip("matplotlib")
    text = curves("Loss", LINES, [("1: head <b>", 0.0, 0.5), ("2", 0.5, 1.0)])
    root = ET.fromstring(text)  # noqa: S314 - it is ours
    assert {"1: head <b>", "2"} <= {element.text for element in root.iter(f"{SVG}text")}
    assert "var(--rule)" in {element.attrib.get("fill") for element in root.iter()}


def test_alone_it_brings_its_colours() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure
    text = inline(lambda: figure(figsize=(2, 1)), "Empty", alone=True)
    assert "var(" not in text
