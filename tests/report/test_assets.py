"""The modules of the page's script are all in it, each behind what it needs."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from frostline.report.assets import MODULES, STYLES, script, style

STATIC = files("frostline.report") / "static"


def test_every_file_is_taken() -> None:
    there = {file.name for file in STATIC.iterdir()}
    assert there == {*(f"{name}.js" for name in MODULES), *(f"{name}.css" for name in STYLES)}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_what_stands_above_it(name: str) -> None:
    text = (STATIC / f"{name}.js").read_text(encoding="utf-8")
    before = MODULES[: MODULES.index(name)]
    imports = re.findall(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', text, re.MULTILINE)
    assert len(imports) == len(re.findall(r"^import", text, re.MULTILINE))
    for names, module in imports:
        assert module in before
        other = (STATIC / f"{module}.js").read_text(encoding="utf-8")
        for one in names.split(","):
            assert re.search(rf"^export (async )?(class|function) {one.strip()}\b", other, re.MULTILINE), one


def test_no_import_and_no_export_is_left() -> None:
    assert not re.search(r"^(import|export)\b", script(), re.MULTILINE)
    top = re.findall(r"^(?:async )?(?:class|function|const|let) (\w+)", script(), re.MULTILINE)
    assert len(top) == len(set(top)), "two modules have a name at the top in common"


def test_nothing_is_fetched_and_no_text_is_read_as_html() -> None:
    assert not re.search(r"https?://|url\(|@import|fetch\(|[a-z]+HTML|insertAdjacent|eval\(", script() + style())
