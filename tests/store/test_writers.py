"""Several processes at one store, and places that cannot be written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from frostline.errors import OutputError, StoreError
from frostline.store.store import Store
from tests.store.building import STREAMS, digests, holds, is_complete, key, on_disk, place, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def indexes(folder: Path) -> list[str]:
    return sorted(file.name for file in place(folder).glob("*.index"))


def test_two_writers_see_each_other(tmp_path: Path) -> None:
    """Once the other has flushed; a row that both put is there once."""
    with on_disk(tmp_path, writer=0) as one, on_disk(tmp_path, writer=1) as two:
        put(one, [1, 2, 3])
        put(two, [3, 4])
        for store in (one, two):
            store.flush()
        assert one.missing(digests([4])) == [0]
        for store in (one, two):
            store.refresh()
            store.refresh()
            assert store.rows == 4
            assert holds(store, [4, 3, 2, 1, 3])
        put(one, [4, 5])
        one.complete()
        two.refresh()
        assert holds(two, [5, 4])
        assert is_complete(two)
    assert indexes(tmp_path) == ["w0000.index", "w0001.index"]
    with on_disk(tmp_path) as store:
        assert store.rows == 5
        assert holds(store, [1, 2, 3, 4, 5])


def test_a_second_run_takes_the_next_number(tmp_path: Path) -> None:
    with on_disk(tmp_path) as one, on_disk(tmp_path) as two:
        put(one, [1])
        put(two, [2])
    with on_disk(tmp_path) as again:
        assert holds(again, [1, 2])
        put(again, [3])
    assert indexes(tmp_path) == ["w0000.index", "w0001.index"]


def test_files_that_grew_since_they_were_read(tmp_path: Path) -> None:
    """Another run wrote and ended between our opening and our first row: its rows are not written over."""
    with on_disk(tmp_path) as late:
        with on_disk(tmp_path) as quick:
            put(quick, [1])
        put(late, [2])
        late.refresh()
        assert holds(late, [2, 1])
    with on_disk(tmp_path) as store:
        assert holds(store, [1, 2])


FILLS = """
import sys
from pathlib import Path
from tests.store.building import on_disk, put
rank = int(sys.argv[2])
with on_disk(Path(sys.argv[1]), writer=rank) as store:
    for row in range(rank, 60, 2):
        put(store, [row, row + 1])
        if row % 7 == 0:
            store.flush()
            store.refresh()
"""


def test_two_processes_fill_one_store(tmp_path: Path) -> None:
    """They begin it at the same time, too."""
    folder = tmp_path / "stores"
    started = [
        subprocess.Popen([sys.executable, "-c", FILLS, str(folder), str(rank)], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    with on_disk(folder) as store:
        assert store.missing(digests(range(60))) == []
        assert holds(store, list(range(60)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_leaves_the_files_alone(tmp_path: Path) -> None:
    with on_disk(tmp_path) as store:
        put(store, [1, 2])
        child = os.fork()
        if not child:
            try:
                put(store, [3])
            except StoreError as error:
                store.close()
                os._exit(7 if "forked" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with on_disk(tmp_path) as other:  # the lock is still the parent's
            put(other, [4])
        put(store, [3])
    assert indexes(tmp_path) == ["w0000.index", "w0001.index"]
    with on_disk(tmp_path) as store:
        assert holds(store, [1, 2, 3, 4])


def test_a_store_in_use_is_not_rebuilt(tmp_path: Path) -> None:
    with on_disk(tmp_path) as store:
        put(store, [1])
        with pytest.raises(StoreError, match="Another process writes to the store"):
            Store.on_disk(tmp_path, key(), STREAMS[:1])
        put(store, [2])
    with on_disk(tmp_path) as store:
        assert holds(store, [1, 2])


def test_too_many_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frostline.store.folder.MOST_WRITERS", 1)
    with on_disk(tmp_path) as one, on_disk(tmp_path) as two:
        put(one, [1])
        with pytest.raises(StoreError, match=r"too many writers.\nRemove it with: frostline store clear"):
            put(two, [2])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond that many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def put_and_flush(store: Store, rows: list[int]) -> None:
    put(store, rows)
    store.flush()


@pytest.mark.parametrize("size", range(0, 160, 8))
def test_a_full_disk(tmp_path: Path, size: int) -> None:
    """At any size at which one of the second row's files may stop; nothing is lost, and it goes on afterwards."""
    with on_disk(tmp_path) as store:
        put(store, [1])
        store.flush()
        with largest_file(size), pytest.raises(OutputError, match=r"no room left to write(.|\n)*run this again"):
            put_and_flush(store, [4])
        held = [1, 4] if store.missing(digests([4])) == [] else [1]
        assert holds(store, held)
        store.flush()
        with on_disk(tmp_path) as other:
            assert holds(other, held)
        put(store, [4, 5])
    with on_disk(tmp_path) as store:
        assert store.missing(digests([1, 4, 5])) == []
        assert holds(store, [5, 1, 4])


def test_a_full_disk_before_there_is_a_store(tmp_path: Path) -> None:
    with largest_file(10), pytest.raises(OutputError, match="no room left to write"):
        on_disk(tmp_path / "stores")
    with on_disk(tmp_path / "stores") as store:
        put(store, [1])
    assert sorted(file.name for file in place(tmp_path / "stores").iterdir() if file.suffix == ".json") == [
        "header.json"
    ]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"cannot be written: Not a directory.\nName another folder"):
        on_disk(tmp_path / "file")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading needs none; the first row that is put says what is missing."""
    with on_disk(tmp_path) as store:
        put(store, [1])
        store.complete()

    def _refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", _refused)
    with on_disk(tmp_path) as store:
        assert holds(store, [1])
        assert is_complete(store)
        put(store, [1])
        with pytest.raises(OutputError, match="cannot be written: Permission denied"):
            put(store, [2])
        assert store.missing(digests([1, 2])) == [1]
