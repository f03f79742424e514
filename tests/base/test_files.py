"""Files that appear complete or not at all, and places that are written through."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from frostline.base.files import atomic_file, is_no_room, output_text, room_on_disk, writes_through
from frostline.errors import DataError, OutputError


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write(file: Path, text: str) -> None:
    with output_text(file) as stream:
        stream.write(text)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_by_number_and_by_words(number: int) -> None:
    assert is_no_room(OSError(number, "x"))
    assert is_no_room(RuntimeError(f"Error while serializing: I/O error: {os.strerror(number)} (os error 1)"))


def test_a_full_disk_is_told_by_what_led_to_an_error() -> None:
    inner = OSError(errno.ENOSPC, "x")
    outer = ValueError("cannot save")
    outer.__cause__ = RuntimeError("shard")
    outer.__cause__.__context__ = inner
    assert is_no_room(outer)
    inner.__context__ = outer  # a circle ends
    assert is_no_room(outer)
    assert not is_no_room(ValueError("x"))
    assert not is_no_room(OSError(errno.EACCES, os.strerror(errno.EACCES)))


@pytest.mark.parametrize(("resumable", "mend"), [(True, "then go on with --resume"), (False, "then run this again")])
def test_a_full_disk_is_said_with_its_mend(tmp_path: Path, resumable: bool, mend: str) -> None:
    with (
        pytest.raises(OutputError, match=rf"no room left to write .*out' \([\d,]+ MB free\).\nMake room, {mend}"),
        room_on_disk(tmp_path / "not" / "there" / "out", can_resume=lambda: resumable),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(KeyError), room_on_disk(tmp_path):
        raise KeyError("x")


@pytest.mark.parametrize(
    ("file", "named"),
    [("stores/a", "stores/a"), ("out-stores/a", "out-stores/a"), ("out.partial/card", "out"), ("out/card", "out")],
)
def test_the_place_that_is_full_is_named(tmp_path: Path, file: str, named: str) -> None:
    with (
        pytest.raises(OutputError, match=rf"no room left to write '{tmp_path / named}' .*\nMake room, then go on"),
        room_on_disk(tmp_path / "out", can_resume=lambda: True),
        room_on_disk(tmp_path / file),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_that_names_another_full_place_passes_unchanged(tmp_path: Path) -> None:
    told = DataError("no space left in the datasets cache")
    told.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(DataError) as caught, room_on_disk(tmp_path):
        raise told
    assert caught.value is told


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.csv"
    with atomic_file(file) as temporary:
        temporary.write_text("first", encoding="utf-8")
        assert not file.exists()
    with suppress(ZeroDivisionError), atomic_file(file) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert file.read_text(encoding="utf-8") == "first"
    assert listing(file.parent) == ["file.csv"]


def test_a_file_that_finds_no_room(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"no room left to write .*\nMake room, then run this again"),
        atomic_file(tmp_path / "file.csv"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert listing(tmp_path) == []


def test_a_file_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps({}), encoding="utf-8")
    with (
        pytest.raises(OutputError, match="cannot be written: Not a directory"),
        atomic_file(tmp_path / "file" / "x" / "y"),
    ):
        pytest.fail("opened")
    with pytest.raises(OutputError, match="is a folder"), atomic_file(tmp_path):
        pytest.fail("opened")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_to_its_target(tmp_path: Path, there: bool) -> None:
    (tmp_path / "deep").mkdir()
    real = tmp_path / "deep" / "real.csv"
    if there:
        real.write_text("old", encoding="utf-8")
        real.chmod(0o640)
    (tmp_path / "middle").symlink_to("deep/real.csv")
    (tmp_path / "link").symlink_to(tmp_path / "middle")
    write(tmp_path / "link", "new")
    assert real.read_text(encoding="utf-8") == "new"
    assert (tmp_path / "link").is_symlink()
    assert listing(tmp_path / "deep") == ["real.csv"]
    if there:
        assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_link_that_leads_back_to_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(OutputError, match="link' cannot be written: Too many levels"):
        write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()


def test_a_new_file_has_the_mode_that_the_mask_leaves(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write(tmp_path / "file.csv", "new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file.csv").stat().st_mode) == 0o640


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / ".file.csv.partial").symlink_to(tmp_path / "mine")
    write(tmp_path / "file.csv", "new")
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "file.csv").read_text(encoding="utf-8") == "new"


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write(tmp_path / "link", "new")
    reader.join(30)
    assert read == ["new"]
    assert pipe.is_fifo()
    assert listing(tmp_path) == ["link", "pipe"]


def test_a_device_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    write(tmp_path / "link", "new")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OutputError, match="no room left to write '/dev/full'"):
        write(Path("/dev/full"), "new")
    assert Path("/dev/full").is_char_device()
    with pytest.raises(OutputError, match="is no regular file"), atomic_file(tmp_path / "link"):
        pytest.fail("opened")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_an_open_descriptor_is_gone_on_with(tmp_path: Path, name: str) -> None:
    """What was in a file before, as after ``>>``, stays."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = f"""
from pathlib import Path
from frostline.base.files import output_text
with output_text(Path({name!r})) as stream:
    stream.write("new")
"""
    log = tmp_path / "log"
    log.write_text("old, ", encoding="utf-8")
    with log.open("a", encoding="utf-8") as stream:
        subprocess.run([sys.executable, "-c", script], stdout=stream, check=True, cwd=tmp_path)
    assert log.read_text(encoding="utf-8") == "old, new"
    assert listing(tmp_path) == ["link", "log"]


def test_what_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert writes_through(Path("/dev/stdout"))
    assert writes_through(Path("/dev/null"))
    assert not any(map(writes_through, (tmp_path, tmp_path / "file", tmp_path / "new" / "file", tmp_path / "loop")))
    assert not writes_through(Path("a\0b"))
