"""Only frostline/compat knows private names of other libraries, or their undocumented modules."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import frostline

if TYPE_CHECKING:
    from collections.abc import Collection

_ROOT = Path(frostline.__file__).parent
_COMPAT = _ROOT / "compat"
_LOOKS_UP = {"getattr", "hasattr", "setattr", "delattr"}
# What these libraries document of the modules inside them.
_DOCUMENTED = {
    "transformers": {
        "cache_utils",
        "dynamic_module_utils",
        "modeling_outputs",
        "pytorch_utils",
        "trainer_utils",
        "utils",
    },
    "datasets": {"builder", "exceptions"},
    "accelerate": {"state", "utils"},
    "peft": set[str](),
}


def _is_private(name: str) -> bool:
    return re.fullmatch(r"_[a-z]\w*", name, re.IGNORECASE) is not None and not name.endswith("__")


def _own_names(tree: ast.AST) -> set[str]:
    """Private names that a file gives to something of its own."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return {name for name in names if _is_private(name)}


def _private_names(tree: ast.AST, given: Collection[str] = ()) -> dict[str, int]:
    """Private names that a file asks others for, and the line of each; those given are its own on ``self``."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not (_is_self(node.value) and node.attr in given):
                found[node.attr] = node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            paths = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found.update((part, node.lineno) for path in paths for part in path.split("."))
        elif isinstance(node, ast.keyword) and node.arg is not None:
            found[node.arg] = node.value.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _LOOKS_UP:
            found.update((arg.value, node.lineno) for arg in node.args if _is_text(arg))  # type: ignore[attr-defined]
    return {name: line for name, line in found.items() if _is_private(name)}


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _of_others(tree: ast.AST, known: Collection[str] = (), inherited: Collection[str] = ()) -> dict[str, int]:
    """Private names that are not the file's own.

    Args:
        tree: The file.
        known: Those that other libraries have too, so that they are its own on ``self`` only.
        inherited: Those that another file of Frostline gives to ``self``.
    """
    own = _own_names(tree)
    asked = _private_names(tree, own | set(inherited))
    return {name: line for name, line in asked.items() if name not in own or name in known}


def _undocumented(tree: ast.AST) -> dict[str, int]:
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            library, _, inner = node.module.partition(".")
            if inner and inner.split(".")[0] not in _DOCUMENTED.get(library, {inner.split(".")[0]}):
                found[node.module] = node.lineno
    return found


def _files() -> dict[str, ast.AST]:
    files = (file for file in sorted(_ROOT.rglob("*.py")) if _COMPAT not in file.parents)
    return {str(file.relative_to(_ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


FILES = _files()
_KNOWN = {name for file in _COMPAT.glob("*.py") for name in _private_names(ast.parse(file.read_text(encoding="utf-8")))}
_INHERITED = {name for tree in FILES.values() for name in _own_names(tree)} - _KNOWN


@pytest.mark.parametrize("file", FILES)
def test_no_private_name_of_another_library(file: str) -> None:
    assert _of_others(FILES[file], _KNOWN, _INHERITED) == {}


@pytest.mark.parametrize("file", FILES)
def test_no_undocumented_module_of_another_library(file: str) -> None:
    assert _undocumented(FILES[file]) == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("torch._C._thing()", {"_C", "_thing"}),
        ("from torch.utils._pytree import tree_map", {"_pytree"}),
        ("from torch import _thing", {"_thing"}),
        ("getattr(tensor, '_version', 0)", {"_version"}),
        ("call(_raise=False)", {"_raise"}),
        ("class A:\n    def f(self): return super()._get()", {"_get"}),
        ("class A:\n    def f(self, other): self._x = 1; return other._x, self.__dict__", set()),
        ("class A:\n    def f(self, other): self._parameters = 1; return other._parameters", {"_parameters"}),
    ],
)
def test_what_is_told(text: str, names: set[str]) -> None:
    assert set(_of_others(ast.parse(text), known={"_parameters"})) == names


def test_undocumented_modules_are_told() -> None:
    text = "from transformers.core_model_loading import x\nfrom datasets.builder import y\nfrom os.path import z"
    assert set(_undocumented(ast.parse(text))) == {"transformers.core_model_loading"}


@pytest.mark.parametrize("file", sorted(_COMPAT.glob("*.py")), ids=lambda file: file.name)
def test_each_name_in_compat_says_which_versions_have_it(file: Path) -> None:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert "In: " in (ast.get_docstring(node) or ""), node.name
