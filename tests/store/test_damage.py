"""Damaged and hostile files: their rows count as missing, and nothing wrong is ever given back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import torch
import xxhash

from frostline.errors import OutputError, StoreError
from frostline.store import mending
from frostline.store.folder import own_files, size_on_disk
from frostline.store.header import discard
from frostline.store.listing import describe, verify
from frostline.store.spec import StreamSpec
from frostline.store.store import Store
from frostline.store.writer import Writer
from tests.store.building import STREAMS, digests, holds, is_complete, key, on_disk, place, put
from tests.thinning import slow

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [1, 2, 3, 4, 5]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one store of two blocks."""
    with on_disk(tmp_path / "stores", about={"model": "m"}) as store:
        put(store, ROWS[:3])
        store.flush()
        put(store, ROWS[3:])
        store.complete()
    return tmp_path / "stores"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the store logs."""
    lines: list[str] = []
    monkeypatch.setattr("logging.Logger.warning", lambda _, line: lines.append(line))
    return lines


@pytest.mark.parametrize("every", [7, *slow(1)])
def test_every_byte_counts(folder: Path, told: list[str], every: int) -> None:
    """One bit in each byte of data and index in turn, or each seventh: what is lost is put again."""
    own = place(folder)
    size = size_on_disk(own)
    pristine = {file: file.read_bytes() for file in own.iterdir()}
    flipped = 0
    for file in sorted([*own.glob("*.data"), *own.glob("*.index")]):
        for at in range(0, len(pristine[file]), every):
            discard(own_files(own))
            for other, content in pristine.items():
                other.write_bytes(content)
            flip(file, at)
            told.clear()
            with on_disk(folder) as store:
                missing = store.missing(digests(ROWS))
                assert missing in ([0, 1, 2], [3, 4], [0, 1, 2, 3, 4])
                assert holds(store, [row for place, row in enumerate(ROWS) if place not in missing])
                assert not is_complete(store)
                put(store, ROWS)
            assert len(told) == 1
            assert f"The store '{own}' has lost " in told[0]
            with on_disk(folder) as store:
                assert holds(store, ROWS)
            assert len(told) == 1
            assert verify(own).faults == ()
            assert describe(own).complete
            assert size_on_disk(own) <= size
            flipped += 1
    assert flipped > 300 // every


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << at % 8
    file.write_bytes(content)


def test_damage_is_mended(folder: Path, told: list[str]) -> None:
    """Only the block that is damaged is computed again; it is said once, and takes no more room each time."""
    own = place(folder)
    size = size_on_disk(own)
    for _ in range(3):
        told.clear()
        flip(next(own.glob("*.s0000.data")), 0)
        assert verify(own).faults
        for _ in range(3):
            with on_disk(folder) as store:
                assert store.rows == 5
                put(store, ROWS)
                assert holds(store, ROWS)
            assert verify(own).faults == ()
            assert size_on_disk(own) <= size
        assert len(told) == 1


def test_what_was_not_put_again_is_missing(folder: Path) -> None:
    """A store whose damage was found, and nothing more, is sound, and not complete."""
    own = place(folder)
    flip(own / "w0000.s0000.data", 0)
    with on_disk(folder) as store:
        assert store.missing(digests(ROWS)) == [0, 1, 2]
    assert verify(own).faults == ()
    assert (describe(own).rows, describe(own).complete) == (2, False)


def test_damage_in_files_that_another_store_writes(folder: Path) -> None:
    """They stay as they are until it is closed."""
    own = place(folder)
    with on_disk(folder) as writer:
        put(writer, [6])
        writer.flush()
        flip(own / "w0000.s0000.data", 0)
        with on_disk(folder) as store:
            put(store, ROWS)
        assert verify(own).faults
    with on_disk(folder) as store:
        assert holds(store, [*ROWS, 6])
    assert verify(own).faults == ()


def test_files_that_are_open_elsewhere_while_they_are_mended(folder: Path) -> None:
    """What was read of the old files stays as it was, whatever the files of that name hold by then."""
    reader = on_disk(folder)
    assert holds(reader, ROWS)
    with (place(folder) / "w0000.index").open("ab") as index:
        index.write(bytes(100))
    with on_disk(folder) as store:
        assert holds(store, ROWS)
    assert not (place(folder) / "w0000.index").exists()
    with on_disk(folder) as store:
        put(store, [*range(6, 30), 1])
    assert (place(folder) / "w0000.index").exists()
    reader.refresh()
    assert holds(reader, ROWS)
    put(reader, [30])
    assert holds(reader, [*ROWS, 30])
    reader.close()
    with on_disk(folder) as store:
        assert holds(store, range(1, 31))


def test_mending_that_ended_before_the_old_files_were_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill, both are there; the next time what was copied is not copied again."""
    own = place(folder)
    size = size_on_disk(own)
    flip(own / "w0000.s0000.data", 0)

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(mending, "_delete", fail)
    with on_disk(folder) as store:
        put(store, ROWS)
    assert size_on_disk(own) > size
    monkeypatch.undo()
    with on_disk(folder) as store:
        put(store, ROWS)
        assert holds(store, ROWS)
    assert verify(own).faults == ()
    assert size_on_disk(own) <= size


def test_no_room_to_mend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is damaged stays, and what was begun of the copy goes."""
    own = place(folder)
    flip(own / "w0000.s0000.data", 0)
    before = {file.name for file in own.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Writer, "flush", full)
    with on_disk(folder) as store:
        assert store.missing(digests(ROWS)) == [0, 1, 2]
    assert verify(own).faults
    assert {file.name for file in own.iterdir() if file.suffix != ".lock"} <= before
    monkeypatch.undo()
    with on_disk(folder) as store:
        put(store, ROWS)
    assert verify(own).faults == ()


def test_damage_of_a_row_that_two_writers_hold(folder: Path, told: list[str]) -> None:
    """The other copy serves, and nothing is lost."""
    with on_disk(folder) as one, on_disk(folder, writer=1) as two:
        put(one, [7])
        put(two, [7, 8])
    data = place(folder) / "w0000.s0002.data"
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    with on_disk(folder) as store:
        assert store.missing(digests([7, 8])) == []
        assert holds(store, [7, 8, *ROWS])
    assert told == []


def test_what_is_damaged_is_never_fetched(folder: Path, told: list[str]) -> None:
    """Not even by those who do not ask first."""
    data = place(folder) / "w0000.s0000.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    with on_disk(folder) as store:
        with pytest.raises(StoreError, match="does not hold the row"):
            store.get(digests([1]))
        assert digests([2])[0] not in store
    assert len(told) == 1


def test_a_file_that_shrinks_while_it_is_open(folder: Path) -> None:
    store = on_disk(folder)
    (place(folder) / "w0000.s0000.data").unlink()
    assert store.missing(digests(ROWS)) == [0, 1, 2, 3, 4]
    put(store, ROWS)
    assert holds(store, ROWS)
    (place(folder) / "w0001.s0000.data").unlink()
    put(store, [10, 11, 12, 13])
    with pytest.raises(StoreError, match="cannot be read any more"):
        store.get(digests([13]))
    store.close()


def test_files_of_another_models_store_are_not_taken(folder: Path, told: list[str]) -> None:
    ours = place(folder)
    with Store.on_disk(folder, key(prefix="other weights"), STREAMS) as other:
        put(other, [7, 8])
    theirs = folder / key(prefix="other weights").digest()[:32]
    for file in theirs.glob("w0000.*"):
        shutil.copy(file, ours)
    with on_disk(folder) as store:
        assert store.rows == 0
    assert "damaged" in told[0]


def record(rows: int, spans: list[tuple[int, int]], body: bytes) -> bytes:
    """A record of an index with true checksums."""
    start = struct.pack("<4sI", b"FLB2", rows)
    text = start + struct.pack("<I", zlib.crc32(start))
    text += b"".join(struct.pack("<QQQ", *span, 0) for span in spans) + body
    return text + struct.pack("<Q", xxhash.xxh3_64_intdigest(text, int(key().digest()[:16], 16)))


@pytest.mark.parametrize(
    "hostile",
    [
        record(2**32 - 1, [(0, 0)] * 3, b""),
        record(0, [(0, 0)] * 3, b""),
        record(1, [(2**63, 1), (0, 1), (0, 1)], bytes(16) + struct.pack("<III", 1, 1, 1)),
        record(1, [(2**64 - 1, 2**32 - 1), (0, 1), (0, 1)], bytes(16) + struct.pack("<III", 2**32 - 1, 1, 1)),
        record(1, [(0, 1), (0, 1), (0, 1)], bytes(16) + struct.pack("<III", 2, 2, 2)),
        hashlib.sha512(b"noise").digest(),
    ],
)
def test_a_hostile_index(folder: Path, told: list[str], hostile: bytes) -> None:
    with (place(folder) / "w0000.index").open("ab") as index:
        index.write(hostile)
    with on_disk(folder) as store:
        assert len(told) == 1
        assert store.rows == 5
        assert holds(store, ROWS)
        put(store, [6])
    with on_disk(folder) as store:
        assert holds(store, [*ROWS, 6])


def test_an_index_of_holes(folder: Path) -> None:
    """A terabyte that takes no room is not read."""
    index = place(folder) / "w0003.index"
    with index.open("wb") as file:
        file.truncate(1 << 40)
    with on_disk(folder) as store:
        assert holds(store, ROWS)


@pytest.mark.parametrize("name", ["w0000.s0000.data", "w0000.index", "header.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    """Nothing is read through a link, and nothing waits for a pipe."""
    file = place(folder) / name
    file.rename(tmp_path / "moved")
    content = (tmp_path / "moved").read_bytes()
    if kind == "link":
        file.symlink_to(tmp_path / "moved")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    if (name, kind) == ("header.json", "folder"):
        with pytest.raises(OutputError, match="cannot be written: Is a directory"):
            on_disk(folder)
        return
    with on_disk(folder) as store:
        assert store.missing(digests(ROWS)) == [0, 1, 2, 3, 4]
        put(store, ROWS)
        assert holds(store, ROWS)
    assert (tmp_path / "moved").read_bytes() == content


def header_of(folder: Path) -> dict[str, Any]:
    header: dict[str, Any] = json.loads((place(folder) / "header.json").read_text(encoding="utf-8"))
    return header


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 1}, "it is no header of format 2"),
        ({"streams": []}, "its streams are no list"),
        ({"streams": [STREAMS[0].to_dict()] * 300}, "its streams are no list"),
        ({"streams": [STREAMS[0].to_dict() | {"shape": [2**40]}]}, "which no store holds"),
        ({"streams": [STREAMS[0].to_dict() | {"dtype": "os.system"}]}, "is no dtype"),
        ({"streams": [STREAMS[0].to_dict()]}, "the streams differ"),
        ({"dtype": "bfloat16"}, "floats stored as None instead of torch.bfloat16"),
        ({"about": {"model": 3}}, "is no short text"),
        ({"key": key(prefix="other").to_dict()}, "the prefix's weights differ"),
        ({"key": {}}, "its key is not what a store's key is"),
        ({"more": 1}, "its 'more' is not what a header has"),
    ],
)
def test_a_header_that_says_anything_else(folder: Path, told: list[str], change: dict[str, Any], words: str) -> None:
    """The store is begun anew, and the reason is told."""
    header = json.dumps(header_of(folder) | change)
    (place(folder) / "header.json").write_text(header, encoding="utf-8")
    with on_disk(folder) as store:
        assert store.rows == 0
        assert not is_complete(store)
        put(store, ROWS)
    assert len(told) == 1
    assert told[0].startswith(f"The store '{place(folder)}' is rebuilt: ")
    assert words in told[0]
    with on_disk(folder) as store:
        assert holds(store, ROWS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "Expecting value: line 1 column 1"),
        (b"{", "Expecting property name enclosed in double quotes"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"\xff\xfe", "it is no text in UTF-8"),
        ('{"format": 1}'.encode("utf-16"), "it is no text in UTF-8"),
        (b'{"format": "\\udcff"}', "it holds half a character, \\udcff"),
        (b"null", "it is no header of format 2"),
        (b" " * 2_000_000, "it is larger than 1,048,576 bytes"),
        (b'{"a":1' * 9999, "Expecting ',' delimiter"),
    ],
)
def test_a_header_that_is_none(folder: Path, told: list[str], text: bytes, words: str) -> None:
    (place(folder) / "header.json").write_bytes(text)
    with on_disk(folder) as store:
        assert store.rows == 0
    assert f"{place(folder) / 'header.json'}' is damaged: {words}" in told[0]


def test_a_header_that_could_not_be_read_again(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no short text"):
        on_disk(tmp_path / "stores", about={"model": "x" * 5000})
    with on_disk(tmp_path / "stores", about={"model": "\udcff\n"}) as store:
        put(store, ROWS)
    assert describe(place(tmp_path / "stores")).model == "?\n"
    with on_disk(tmp_path / "stores") as store:
        assert holds(store, ROWS)


def test_another_key_is_another_store(folder: Path) -> None:
    with Store.on_disk(folder, key(prefix="other"), STREAMS) as store:
        assert store.rows == 0
    assert len(list(folder.iterdir())) == 2


def test_files_of_others_stay(folder: Path, told: list[str]) -> None:
    own = place(folder)
    (own / "notes.txt").write_text("mine", encoding="utf-8")
    with Store.on_disk(folder, key(), [StreamSpec("x", (), torch.int64)]) as store:
        assert store.rows == 0
    assert (own / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert [file.name for file in sorted(own.iterdir()) if file.suffix != ".lock"] == ["header.json", "notes.txt"]
    assert len(told) == 1
    shutil.rmtree(folder)


@pytest.mark.parametrize("text", ["", "x", "[]", "1e999", "9" * 100, "[" * 100])
def test_a_hostile_mark(folder: Path, text: str) -> None:
    (place(folder) / "complete").write_text(text, encoding="utf-8")
    with on_disk(folder) as store:
        assert not is_complete(store)
