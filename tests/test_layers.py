"""Arrows run one way: what a package may import, lazily and for types too, and that no import runs in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import frostline

ROOT = Path(frostline.__file__).parent
# Each may import those before it. What stands in one place knows nothing of its neighbours.
LAYERS = (
    ("errors",),
    ("compat",),
    ("base",),
    ("store", "data", "demo", "report"),
    ("checkpoints",),
    ("anatomy",),
    ("plan",),
    ("freezing",),
    ("evidence",),
    ("engine",),
    ("training",),
    ("runs",),
    ("cli",),
)
PLACE = {package: place for place, packages in enumerate(LAYERS) for package in packages}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def imported(module: str) -> set[str]:
    """The modules of ours that one imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in names}
    return (found & FILES.keys()) - {module}


def package(module: str) -> str | None:
    """The package of ours that a module is in; None for the two at the top, which know all."""
    return [*module.split("."), ""][1] if module not in {"frostline", "frostline.__main__"} else None


def test_every_package_has_its_place() -> None:
    assert {found for module in FILES if (found := package(module)) is not None} == PLACE.keys()


@pytest.mark.parametrize("module", [module for module in FILES if package(module) is not None])
def test_a_module_imports_what_lies_beneath_it(module: str) -> None:
    own = package(module)
    assert own is not None
    for other in imported(module):
        beneath = package(other)
        assert beneath is not None, f"{module} imports {other}, which knows everything"
        assert beneath == own or PLACE[beneath] < PLACE[own], f"{module} imports {other}"


def test_no_import_runs_in_a_circle() -> None:
    graph = {module: imported(module) for module in FILES if package(module) is not None}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


def test_a_circle_would_be_found() -> None:
    with pytest.raises(ValueError, match="cycle"):
        list(TopologicalSorter({"one": {"other"}, "other": {"one"}}).static_order())
