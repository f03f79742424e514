"""Folders whose files are known by their digests."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from frostline.base.sealing import SEAL_FILE, Seal, file_digest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_text("a", encoding="utf-8")
    (folder / "deep" / "ü").write_text("b", encoding="utf-8")
    Seal.of(folder).write(folder)
    return folder


def test_there_and_back(sealed: Path) -> None:
    seal = Seal.read(sealed)
    assert seal == Seal.of(sealed)
    assert seal.files == {name: hashlib.sha256(text).hexdigest() for name, text in (("a", b"a"), ("deep/ü", b"b"))}
    assert (seal.missing(sealed), seal.altered(sealed), seal.beside(sealed)) == ([], [], [])


def test_what_changed(sealed: Path) -> None:
    seal = Seal.read(sealed)
    (sealed / "a").write_text("A", encoding="utf-8")
    (sealed / "deep" / "ü").unlink()
    (sealed / "new").mkdir()
    (sealed / "new" / "file").touch()
    assert (seal.altered(sealed), seal.missing(sealed), seal.beside(sealed)) == (["a"], ["deep/ü"], ["new", "new/file"])
    assert Seal.of(sealed).digest != seal.digest


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"files": []},
        {"files": {"a": 3}},
        {"files": {"a": "b" * 64}},  # not what the digest is of
        {"files": {"../a": "b" * 64}},
        {"files": {"/etc/passwd": "b" * 64}},
        {"digest": None},
    ],
)
def test_a_seal_that_is_damaged(sealed: Path, change: dict[str, Any]) -> None:
    values = json.loads((sealed / SEAL_FILE).read_text(encoding="utf-8"))
    (sealed / SEAL_FILE).write_text(json.dumps(values | change), encoding="utf-8")
    with pytest.raises(ValueError, match=r"it is no list of files of version 1|does not follow from its files"):
        Seal.read(sealed)


def test_no_seal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Seal.read(tmp_path)


def test_what_has_no_end_is_not_read(sealed: Path) -> None:
    (sealed / "a").unlink()
    (sealed / "a").symlink_to("/dev/zero")
    os.mkfifo(sealed / "pipe")
    seal = Seal.read(sealed)
    assert seal.missing(sealed) == ["a"]
    for name in ("a", "pipe", "deep"):
        with pytest.raises(OSError, match="it is no regular file"):
            file_digest(sealed / name)
