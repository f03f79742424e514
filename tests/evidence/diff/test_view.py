"""The colours and words of a diff's tower."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

import frostline as fl
from frostline.evidence.diff.view import level_of, sorted_cells
from tests.checkpoints.folders import save_classifier, tensors_of, write

if TYPE_CHECKING:
    from pathlib import Path


def test_each_unit_has_its_mark(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base")
    tensors = tensors_of(base)
    moved = {name: tensor * (1.02 if "layer.1." in name else 1) for name, tensor in tensors.items()}
    tuned = write(tmp_path / "tuned", moved | {"classifier.bias": torch.full((2,), math.nan)}, base)
    found = fl.diff(base, tuned, expect_frozen="head")
    marks = dict(zip((unit.name for unit in found.units), found._marks, strict=True))
    assert marks["layer 0"] == marks["layer 0"] | {"level": "0", "text": "identical"}
    assert marks["layer 1"] == marks["layer 1"] | {"level": "4", "text": "partly changed · 0.02"}
    assert len(marks["layer 1"]["facts"]) == 16
    page = found.to_html()
    assert "Violation: classifier.bias was expected frozen: changed" in page
    assert "partly changed · 0.02" in found._repr_html_()


@pytest.mark.parametrize(("relative", "level"), [(0.0, "1"), (1e-4, "2"), (0.05, "4"), (3.0, "5"), (math.nan, "bad")])
def test_levels(relative: float, level: str) -> None:
    assert level_of(relative) == level


def test_figures_are_sorted_as_numbers_and_none_comes_last() -> None:
    cells = sorted_cells(("7", "1.5e-05", "-", "changed"))
    assert [cell if isinstance(cell, str) else cell["value"] for cell in cells] == ["7", "1.5e-05", "-1e999", "changed"]
