from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from frostline.errors import StoreError
from frostline.store.folder import default_folder
from frostline.store.listing import clear, describe, stores_in, verify, why_new
from frostline.store.store import Store
from tests.store.building import STREAMS, key, on_disk, place, put

if TYPE_CHECKING:
    from frostline.store.spec import StoreKey


def test_where_stores_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("FROSTLINE_STORE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert default_folder() == tmp_path / ".cache/frostline/store"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_folder() == Path("/cache/frostline/store")
    monkeypatch.setenv("FROSTLINE_STORE", "~/stores")
    assert default_folder() == tmp_path / "stores"
    monkeypatch.setenv("FROSTLINE_STORE", "~nobody-of-this-name/stores")
    with pytest.raises(StoreError, match="needs a home folder"):
        default_folder()


def test_what_a_store_says_of_itself(tmp_path: Path) -> None:
    with on_disk(tmp_path, about={"model": "bert"}) as store:
        put(store, [1, 2])
        store.flush()
        info = describe(place(tmp_path))
        assert (info.model, info.boundary, info.dtype) == ("bert", "layer 4", "float32, bfloat16")
        assert (info.rows, info.complete, info.fault) == (2, False, "")
        assert info.bytes == store.bytes_used
        assert 0 <= (info.age_in_seconds or 0) < 600
        store.complete()
    assert describe(place(tmp_path)).complete


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_has_one_name(tmp_path: Path, dtype: torch.dtype) -> None:
    """Whatever the key calls it: what its streams are stored as."""
    Store.on_disk(tmp_path, key(dtype="half"), STREAMS, dtype=dtype).close()
    assert describe(place(tmp_path)).dtype == str(dtype).removeprefix("torch.")


def test_which_stores_are_meant(tmp_path: Path) -> None:
    for prefix in "abc":
        Store.on_disk(tmp_path, key(prefix=prefix), STREAMS).close()
    (tmp_path / "notes").mkdir()
    (tmp_path / ("0" * 32)).symlink_to(tmp_path / "notes")
    found = stores_in(tmp_path)
    assert {path.name for path in found} == {key(prefix=prefix).digest()[:32] for prefix in "abc"}
    assert stores_in(tmp_path, [found[1].name[:8], found[1].name]) == [found[1]]
    for name in ("", "zz", "../..", "*"):
        with pytest.raises(StoreError, match="is the name of no store"):
            stores_in(tmp_path, [name])
    assert stores_in(tmp_path / "missing") == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be read: Not a directory"):
        stores_in(tmp_path / "file")


def test_a_beginning_that_two_stores_share(tmp_path: Path) -> None:
    for name in ("ab" + "0" * 30, "ab" + "1" * 30):
        (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match="'ab' is the name of 2 stores"):
        stores_in(tmp_path, ["ab"])


def test_verify_finds_each_fault(tmp_path: Path) -> None:
    with on_disk(tmp_path) as store:
        for row in (1, 2, 3):
            put(store, [row])
            store.flush()
    own = place(tmp_path)
    assert verify(own).faults == ()
    assert verify(own).blocks == 3
    data = own / "w0000.s0002.data"
    content = data.read_bytes()
    data.write_bytes(content[:8] + b"\xff" * 4 + content[12:])
    assert verify(own).faults == ("block 2 of 3 (1 rows, written by writer 0)",)
    with (own / "w0000.index").open("ab") as index:
        index.write(b"rubbish rubbish")
    assert len(verify(own).faults) == 2
    assert "is damaged from byte" in verify(own).faults[0]
    (own / "header.json").unlink()
    assert verify(own).faults == ("it has no header",)
    assert describe(own).fault == "it has no header"


def test_a_store_under_another_name(tmp_path: Path) -> None:
    on_disk(tmp_path).close()
    moved = place(tmp_path).rename(tmp_path / ("0" * 32))
    assert verify(moved).faults == ("its header is another store's",)


def test_clearing(tmp_path: Path) -> None:
    with on_disk(tmp_path) as store:
        put(store, [1])
        with pytest.raises(StoreError, match="A process writes to the store"):
            clear(place(tmp_path))
    reader = on_disk(tmp_path)
    assert reader.missing([]) == []
    own, size = place(tmp_path), reader.bytes_used
    assert clear(own) == size
    assert not own.exists()


def test_clearing_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    on_disk(tmp_path).close()
    own = place(tmp_path)
    (own / "notes").mkdir()
    clear(own)
    assert [file.name for file in own.iterdir()] == ["notes"]


def test_why_a_store_is_begun(tmp_path: Path) -> None:
    def put_down(wanted: StoreKey, model: str = "bert") -> None:
        Store.on_disk(tmp_path, wanted, STREAMS, about={"model": model}).close()

    assert why_new(tmp_path, key(), "bert") is None
    put_down(key(prefix="other", config="other"))
    put_down(key(prefix="other"), "another")
    near = key(attention="eager")
    put_down(near)
    (tmp_path / ("0" * 32)).mkdir()
    assert why_new(tmp_path, key(), "bert") == f"attention by sdpa instead of eager (store {near.digest()[:12]})"
    assert why_new(tmp_path, key(), "a third") is None
    put_down(key())
    assert why_new(tmp_path, key(), "bert") is None
