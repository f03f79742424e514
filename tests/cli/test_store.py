"""``frostline store`` as a user meets it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from frostline.store.store import Store
from tests.store.building import STREAMS, key, put

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

WHOLE, BEGUN = key(), key(prefix="other")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a store that is complete and one that is not."""
    folder = tmp_path / "stores"
    with Store.on_disk(folder, WHOLE, STREAMS, about={"model": "bert\x1b[31m"}) as store:
        put(store, [1, 2, 3])
        store.complete()
    with Store.on_disk(folder, BEGUN, STREAMS) as store:
        put(store, [1])
    return folder


def name(of: object) -> str:
    return (WHOLE if of is WHOLE else BEGUN).digest()[:32]


def damage(folder: Path) -> None:
    data = folder / name(WHOLE) / "w0000.s0000.data"
    data.write_bytes(b"\xff" + data.read_bytes()[1:])


def test_listing(frostline: Callable[..., Done], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = frostline("store", "list", "--store-dir", folder)
    assert (done.status, done.err) == (0, "")
    (row,) = (line for line in done.out.splitlines() if line.startswith(name(WHOLE)[:12]))
    assert row.split()[1:7] == ["bert\\x1b[31m", "layer", "4", "float32,", "bfloat16", "3"]
    assert "complete" in row
    assert f"2 in '{folder}', " in done.out
    assert done.out.count("begun") == 1
    monkeypatch.setenv("FROSTLINE_STORE", str(folder))
    again = frostline("store", "list").out
    assert re.sub(r"\d+ seconds?", "", again) == re.sub(r"\d+ seconds?", "", done.out)  # how old they are
    one = frostline("store", "list", name(BEGUN)[:6])
    assert name(WHOLE)[:12] not in one.out
    assert "1 in " in one.out


def test_listing_as_json(frostline: Callable[..., Done], folder: Path) -> None:
    found = {
        entry["name"]: entry for entry in json.loads(frostline("store", "list", "--store-dir", folder, "--json").out)
    }
    assert found.keys() == {name(WHOLE), name(BEGUN)}
    whole = found[name(WHOLE)]
    assert (whole["rows"], whole["complete"], whole["fault"]) == (3, True, "")
    assert whole["folder"] == str(folder / name(WHOLE))
    assert whole["bytes"] == sum(file.stat().st_size for file in (folder / name(WHOLE)).iterdir())


def test_no_stores(frostline: Callable[..., Done], tmp_path: Path) -> None:
    for command in ("list", "verify"):
        done = frostline("store", command, "--store-dir", tmp_path / "none")
        assert (done.status, done.out) == (0, f"There is no store in '{tmp_path / 'none'}'.\n")
    assert json.loads(frostline("store", "list", "--store-dir", tmp_path / "none", "--json").out) == []
    assert not (tmp_path / "none").exists()


def test_verifying(frostline: Callable[..., Done], folder: Path) -> None:
    done = frostline("store", "verify", "--store-dir", folder)
    assert (done.status, done.out.count(": sound, 1 blocks, ")) == (0, 2)
    damage(folder)
    done = frostline("store", "verify", "--store-dir", folder)
    assert done.status == 1
    assert f"{name(WHOLE)[:12]}: damaged, 1 blocks, " in done.out
    assert "a run that needs it computes it again, and leaves the store whole." in " ".join(done.out.split())
    assert "  block 1 of 1 (3 rows, written by writer 0)\n" in done.out
    assert f"{name(BEGUN)[:12]}: sound" in done.out
    assert frostline("store", "verify", "--store-dir", folder, name(BEGUN)).status == 0
    done = frostline("store", "verify", "--store-dir", folder, name(WHOLE), "--json")
    assert done.status == 1
    assert json.loads(done.out)[0]["faults"] == ["block 1 of 1 (3 rows, written by writer 0)"]


def test_a_store_without_a_header(frostline: Callable[..., Done], folder: Path) -> None:
    (folder / name(BEGUN) / "header.json").write_text("{", encoding="utf-8")
    done = frostline("store", "list", "--store-dir", folder)
    assert done.status == 0
    assert f"{name(BEGUN)[:12]}: '{folder / name(BEGUN) / 'header.json'}' is damaged: " in done.out
    assert frostline("store", "verify", "--store-dir", folder).status == 1
    assert frostline("store", "clear", "--store-dir", folder, name(BEGUN)).status == 0
    assert not (folder / name(BEGUN)).exists()


def test_clearing(frostline: Callable[..., Done], folder: Path) -> None:
    done = frostline("store", "clear", "--store-dir", folder, name(BEGUN)[:8])
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{name(BEGUN)[:12]}: ")
    assert [path.name for path in folder.iterdir()] == [name(WHOLE)]
    size = sum(file.stat().st_size for file in (folder / name(WHOLE)).iterdir())
    done = frostline("store", "clear", "--store-dir", folder, "--all", "--json")
    assert json.loads(done.out) == {"freed_bytes": size, "cleared": [name(WHOLE)]}
    assert list(folder.iterdir()) == []


def test_what_is_refused(refused: Callable[..., str], folder: Path) -> None:
    assert "Name the stores to clear, or give --all" in refused("store", "clear", "--store-dir", folder)
    assert "and not both" in refused("store", "clear", "--store-dir", folder, "--all", name(WHOLE))
    for command in ("list", "verify", "clear"):
        assert "'zz' is the name of no store" in refused("store", command, "--store-dir", folder, "zz")
    assert "cannot be read: Not a directory" in refused(
        "store", "list", "--store-dir", folder / name(WHOLE) / "complete"
    )
