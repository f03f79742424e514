"""The Python reference holds every public name, and nothing that is not there."""

from __future__ import annotations

import re
from importlib import import_module

import frostline
from tests.docs.blocks import ROOT

SHOWN = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_public_name_is_shown_once() -> None:
    public = [name.removeprefix("frostline.") for name in SHOWN if name.count(".") == 1]
    assert sorted(public) == sorted(frostline.__all__)


def test_what_is_shown_is_there_and_says_what_it_is() -> None:
    for path in SHOWN:
        module, _, name = path.rpartition(".")
        assert getattr(import_module(module), name).__doc__, path
