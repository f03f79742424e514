"""The tour names files and tests that are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+/[\w/]*\.?\w*)`", PAGE)))


def test_many_are_named() -> None:
    assert len([name for name in NAMED if name.endswith(".py")]) >= 30


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_there(name: str) -> None:
    assert (ROOT / name).exists() or (ROOT / "src" / "frostline" / name).exists()
