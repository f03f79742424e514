"""Kills at any moment: what was flushed stays, the rest is computed again, and writing goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.store.building import digests, holds, on_disk, place, put

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST, SECOND = [1, 2, 3], [4, 5]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A store of two blocks, and the sizes of its files when the first was there alone."""
    folder = tmp_path_factory.mktemp("whole")
    with on_disk(folder) as store:
        put(store, FIRST)
        store.flush()
        sizes = {file.name: file.stat().st_size for file in place(folder).iterdir()}
        put(store, SECOND)
    return folder, sizes


@pytest.fixture
def torn(whole: tuple[Path, dict[str, int]], tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A copy of it to tear: the folder of stores, and the store's own."""
    shutil.copytree(whole[0], tmp_path / "torn")
    yield tmp_path / "torn", place(tmp_path / "torn")
    shutil.rmtree(tmp_path / "torn")


def tails(whole: tuple[Path, dict[str, int]], suffix: str) -> list[tuple[str, int]]:
    """Each place where a file could end after the first block, the end itself left out."""
    folder, sizes = whole
    return [
        (file.name, size)
        for file in sorted(place(folder).glob(f"*{suffix}"))
        for size in range(sizes[file.name], file.stat().st_size)
    ]


def goes_on(folder: Path, kept: list[int]) -> None:
    """What is kept is right, what is not is missing, and what is put again is there for the next run."""
    with on_disk(folder) as store:
        rows = FIRST + SECOND
        assert store.missing(digests(rows)) == [place for place, row in enumerate(rows) if row not in kept]
        assert holds(store, kept)
        put(store, rows)
        assert holds(store, rows)
    with on_disk(folder) as store:
        assert store.missing(digests(rows)) == []
        assert holds(store, rows)


def test_an_index_that_ends_anywhere(whole: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    """The data is there, the record is not whole; the tail is cut off, and the same files are gone on with."""
    cuts = tails(whole, ".index")
    assert len(cuts) > 100
    for name, size in cuts:
        folder = tmp_path / f"{size}"
        shutil.copytree(whole[0], folder)
        with (place(folder) / name).open("r+b") as index:
            index.truncate(size)
        goes_on(folder, FIRST)
        assert [file.name for file in place(folder).glob("*.index")] == [name]
        assert {file.name: file.stat().st_size for file in place(folder).iterdir()} == {
            file.name: file.stat().st_size for file in place(whole[0]).iterdir()
        }


def test_data_that_ends_anywhere(whole: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    """Without its record, as a kill leaves it; and with it, as a lost disk cache may."""
    folder, sizes = whole
    cuts = tails(whole, ".data")
    assert len(cuts) > 50
    for name, size in cuts:
        for with_record in (False, True):
            copy = tmp_path / f"{name}-{size}-{with_record}"
            shutil.copytree(folder, copy)
            with (place(copy) / name).open("r+b") as data:
                data.truncate(size)
            if not with_record:
                with (place(copy) / "w0000.index").open("r+b") as index:
                    index.truncate(sizes["w0000.index"])
            goes_on(copy, FIRST)


def test_files_that_are_gone(torn: tuple[Path, Path]) -> None:
    folder, own = torn
    (own / "w0000.s0001.data").unlink()
    goes_on(folder, [])


def test_zeros_where_a_record_should_be(torn: tuple[Path, Path]) -> None:
    """A crash of the machine may leave a file longer than what reached the disk."""
    folder, own = torn
    with (own / "w0000.index").open("ab") as index:
        index.write(bytes(100))
    goes_on(folder, FIRST + SECOND)
    with on_disk(folder) as store:
        put(store, [9])
    with on_disk(folder) as store:
        assert holds(store, [*FIRST, *SECOND, 9])


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.store.building import on_disk, put
store = on_disk(Path(sys.argv[1]))
for row in (1, 2, 3):
    put(store, [row])
store.flush()
for row in (4, 5):
    put(store, [row])
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "stores")], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"ready\n"), done.stderr
    goes_on(tmp_path / "stores", FIRST)
    assert [file.name for file in place(tmp_path / "stores").glob("*.index")] == ["w0000.index"]


def test_a_store_that_nobody_closes(tmp_path: Path) -> None:
    """With the last reference to it, what was put is flushed."""
    store = on_disk(tmp_path)
    put(store, FIRST)
    del store
    with on_disk(tmp_path) as again:
        assert holds(again, FIRST)
