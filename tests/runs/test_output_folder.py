from __future__ import annotations

import errno
import os
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from frostline.base.logging import get_logger
from frostline.base.sealing import Seal
from frostline.errors import OutputError
from frostline.runs.output_folder import OutputFolder
from tests.training.outputs import checkpoint, fail_to_rename, fill, interrupted, listing


def test_a_finished_folder_takes_the_targets_place_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    with folder.claim(resume=False, overwrite=False):
        checkpoint(folder, 1)
        with folder.publish() as staged:
            (staged / "config.json").write_text("{}", encoding="utf-8")
            assert not folder.target.exists()
    assert listing(tmp_path) == ["out"]
    assert listing(tmp_path / "out") == ["config.json"]


def test_a_failure_before_the_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "deep" / "down" / "out")
    with suppress(ZeroDivisionError), folder.claim(resume=False, overwrite=False):
        folder.remember({"epochs": 3})
        raise ZeroDivisionError
    assert listing(tmp_path) == []


def test_a_failure_that_leaves_half_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    with suppress(ZeroDivisionError), folder.claim(resume=False, overwrite=False):
        checkpoint(folder, 4, complete=False)
        raise ZeroDivisionError
    assert listing(tmp_path) == []


def test_a_failure_behind_a_checkpoint_leaves_it_to_be_resumed(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "deep" / "out")
    assert listing(tmp_path / "deep") == ["out.partial"]
    with folder.claim(resume=True, overwrite=False):
        assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-3"


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_cannot_write_to_one_folder(tmp_path: Path, overwrite: bool) -> None:
    first = OutputFolder(tmp_path / "out")
    second = OutputFolder(tmp_path / "out")
    with first.claim(resume=False, overwrite=False):
        kept = checkpoint(first, 1)
        with (
            pytest.raises(OutputError, match="Another run is writing to"),
            second.claim(resume=False, overwrite=overwrite),
        ):
            pytest.fail("claimed twice")
        assert kept.exists()
    with second.claim(resume=True, overwrite=False):
        pass


def test_an_interrupted_run_is_neither_forgotten_nor_lost(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "out")
    with (
        pytest.raises(OutputError, match=r"(?s)An interrupted run is at .*--resume, or start anew by --overwrite"),
        folder.claim(resume=False, overwrite=False),
    ):
        pytest.fail("claimed")
    assert folder.last_checkpoint() is not None
    with suppress(ZeroDivisionError), folder.claim(resume=False, overwrite=True):
        raise ZeroDivisionError  # the data cannot be used, for one
    assert folder.last_checkpoint() is not None
    with folder.claim(resume=False, overwrite=True):
        folder.remember({"epochs": 4.0})
        assert folder.last_checkpoint() is None
        checkpoint(folder, 1)
        folder.remember({"epochs": 4.0})
        assert folder.last_checkpoint() is not None


def test_nothing_to_resume(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"no interrupted run at .* to resume"),
        OutputFolder(tmp_path / "out").claim(resume=True, overwrite=False),
    ):
        pytest.fail("claimed")
    assert listing(tmp_path) == []
    fill(tmp_path / "out")
    with (
        pytest.raises(OutputError, match=r"is complete; there is nothing to resume"),
        OutputFolder(tmp_path / "out").claim(resume=True, overwrite=False),
    ):
        pytest.fail("claimed")
    assert listing(tmp_path) == ["out"]


def test_a_folder_in_use_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = fill(tmp_path / "out")
    folder = OutputFolder(target)
    with (
        pytest.raises(OutputError, match=r"is in use.\nChoose another --out, or pass --overwrite"),
        folder.claim(resume=False, overwrite=False),
    ):
        pytest.fail("claimed")
    with pytest.raises(ZeroDivisionError), folder.claim(resume=False, overwrite=True), folder.publish():
        raise ZeroDivisionError
    assert (target / "model.safetensors").read_text(encoding="utf-8") == "old"
    with folder.claim(resume=False, overwrite=True), folder.publish() as staged:
        (staged / "model.safetensors").write_text("new", encoding="utf-8")
    assert (target / "model.safetensors").read_text(encoding="utf-8") == "new"
    assert listing(tmp_path) == ["out"]


def test_what_happens_to_be_called_as_work_is(tmp_path: Path) -> None:
    """Each of these shows something of a run, and something else."""
    for name, files in {
        "a": [".lock", "thesis.tex"],
        "b": ["run.json", "checkpoints/my-notes.txt"],
        "c": ["checkpoints/checkpoint-3/model.safetensors"],
        "d": ["model/model.safetensors"],
    }.items():
        for file in files:
            place = tmp_path / f"{name}.partial" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        with (
            pytest.raises(OutputError, match="holds something else"),
            OutputFolder(tmp_path / name).claim(resume=False, overwrite=True),
        ):
            pytest.fail("claimed")
        assert all((tmp_path / f"{name}.partial" / file).exists() for file in files)


def test_a_run_that_was_killed_before_its_first_whole_checkpoint(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    with folder.claim(resume=False, overwrite=False):
        folder.remember({"epochs": 3.0})
        checkpoint(folder, 3, complete=False)
        killed = tmp_path / "killed.partial"
        shutil.copytree(folder.work, killed)
    folder = OutputFolder(tmp_path / "killed")
    with (
        pytest.raises(OutputError, match=r"before it had a whole checkpoint .*\nStart it without --resume\."),
        folder.claim(resume=True, overwrite=False),
    ):
        pytest.fail("claimed")
    assert (killed / "checkpoints" / "checkpoint-3").is_dir()
    with folder.claim(resume=False, overwrite=False):
        folder.remember({"epochs": 3.0})
        assert not folder.checkpoints.exists()
    assert listing(tmp_path) == []


def test_folders_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    beside = fill(tmp_path / "out.replaced", "mine")
    folder = OutputFolder(tmp_path / "out")
    with folder.claim(resume=False, overwrite=False), folder.publish() as staged:
        (staged / "config.json").write_text("{}", encoding="utf-8")
    assert (beside / "model.safetensors").read_text(encoding="utf-8") == "mine"

    in_the_way = fill(tmp_path / "other.partial", "mine")
    with (
        pytest.raises(OutputError, match="holds something else"),
        OutputFolder(tmp_path / "other").claim(resume=False, overwrite=True),
    ):
        pytest.fail("claimed")
    assert len(listing(in_the_way)) == 4


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_appears_meanwhile_is_not_replaced_unasked(tmp_path: Path, kind: str) -> None:
    folder = OutputFolder(tmp_path / "out")

    def finish() -> None:
        with folder.claim(resume=folder.work.exists(), overwrite=False):
            if folder.last_checkpoint() is None:
                checkpoint(folder, 1)
            with folder.publish() as staged:
                (staged / "config.json").write_text("{}", encoding="utf-8")
                if not (tmp_path / "mine").exists():
                    mine = fill(tmp_path / "out") if kind == "folder" else tmp_path / "out"
                    (mine / "notes" if kind == "folder" else mine).write_text("mine", encoding="utf-8")

    with pytest.raises(OutputError, match=r"Something was put at .*out' while the run was working"):
        finish()
    (tmp_path / "out").rename(tmp_path / "mine")
    finish()
    assert listing(tmp_path) == ["mine", "out"]
    assert listing(tmp_path / "out") == ["config.json"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = OutputFolder(tmp_path / "out")
    with folder.claim(resume=False, overwrite=False), folder.publish() as staged:
        (staged / "config.json").write_text("{}", encoding="utf-8")
    assert listing(tmp_path) == ["out"]
    assert listing(tmp_path / "out") == ["config.json"]


@pytest.mark.parametrize("written", [".", "out/..", "../here", "../other/../here", "out", "./out/"])
def test_ways_to_write_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    folder = OutputFolder(Path(written))
    with folder.claim(resume=False, overwrite=False), folder.publish() as staged:
        (staged / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    expected = here / "out" if written.rstrip("/").endswith("out") else here
    assert listing(expected) == ["config.json"]
    assert [entry for entry in listing(tmp_path) + listing(here) if "partial" in entry] == []


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    folder = OutputFolder(tmp_path / "out")
    with folder.claim(resume=False, overwrite=False), folder.publish() as staged:
        (staged / "config.json").write_text("{}", encoding="utf-8")
    assert listing(tmp_path) == ["out", "real"]
    assert (tmp_path / "out").is_symlink()
    assert listing(tmp_path / "out") == ["config.json"]


def test_a_link_that_leads_back_to_itself(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "out")
    with (
        pytest.raises(OutputError, match="out' is a link that leads back to itself"),
        OutputFolder(tmp_path / "out").claim(resume=False, overwrite=True),
    ):
        pytest.fail("claimed")
    assert listing(tmp_path) == ["out"]


def test_the_root_is_no_output_folder() -> None:
    with pytest.raises(OutputError, match="'/' cannot be an output folder"):
        OutputFolder(Path("/"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file", "'.*file' is a file"), ("file/out", "cannot be written: Not a directory"), ("a" * 300, "too long")],
)
def test_places_that_cannot_be_written(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with (
        pytest.raises(OutputError, match=reason),
        OutputFolder(tmp_path / name).claim(resume=False, overwrite=True),
    ):
        pytest.fail("claimed")
    assert listing(tmp_path) == ["file"]


def test_a_mount_point_is_refused_before_the_work_not_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda place: str(place) == str(tmp_path / "out"))
    with (
        pytest.raises(OutputError, match="where a file system is mounted"),
        OutputFolder(tmp_path / "out").claim(resume=False, overwrite=False),
    ):
        pytest.fail("claimed")


def test_what_was_there_comes_back_when_the_new_folder_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fill(tmp_path / "out")
    fail_to_rename(monkeypatch, OSError(errno.EACCES, os.strerror(errno.EACCES)), only="model")
    folder = OutputFolder(target)
    with (
        pytest.raises(OutputError, match="cannot be written: Permission denied"),
        folder.claim(resume=False, overwrite=True),
        folder.publish(),
    ):
        pass
    assert (target / "model.safetensors").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (True, True), (False, True)])
def test_what_was_there_comes_back_after_a_kill_between_the_two_renames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, resume: bool, overwrite: bool
) -> None:
    monkeypatch.setattr(get_logger(), "propagate", True)
    target = fill(tmp_path / "out")
    folder = OutputFolder(target)
    with folder.claim(resume=False, overwrite=True):
        folder.remember({})
        checkpoint(folder, 3)
        fill(folder.work / "model", "new")
    target.rename(folder.work / "replaced")

    in_use = nullcontext() if overwrite else pytest.raises(OutputError, match="is in use")
    with in_use, folder.claim(resume=resume, overwrite=overwrite):
        assert (target / "model.safetensors").read_text(encoding="utf-8") == "old"
    assert (target / "model.safetensors").read_text(encoding="utf-8") == "old"
    assert f"'{target}' is back" in caplog.text
    assert not (folder.work / "replaced").exists()


def test_what_was_there_comes_back_when_stopped_between_the_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fill(tmp_path / "out")
    fail_to_rename(monkeypatch, KeyboardInterrupt(), only="model")
    folder = OutputFolder(target)
    with pytest.raises(KeyboardInterrupt), folder.claim(resume=False, overwrite=True), folder.publish():
        pass
    assert listing(tmp_path) == ["out"]
    assert (target / "model.safetensors").read_text(encoding="utf-8") == "old"


def test_a_folder_that_cannot_be_put_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted(tmp_path / "out")
    fill(folder.work / "replaced")
    fail_to_rename(monkeypatch, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    with (
        pytest.raises(OutputError, match=r"out' is in '.*out\.partial/replaced' and cannot be moved back"),
        folder.claim(resume=True, overwrite=False),
    ):
        pytest.fail("claimed")
    assert "model.safetensors" in listing(folder.work / "replaced")


def test_a_resumed_run_must_have_the_settings_it_began_with(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "out")
    with folder.claim(resume=True, overwrite=False):
        folder.remember({"epochs": 3.0})
        with pytest.raises(OutputError, match=r"The interrupted run had --epochs 3.0; this one has --epochs 4.0\."):
            folder.remember({"epochs": 4.0})
        with pytest.raises(OutputError, match=r"had no --seed; this one has --seed 1"):
            folder.remember({"epochs": 3.0, "seed": 1})


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_run_is_not_resumed_whose_settings_are_not_known(tmp_path: Path, content: str | None) -> None:
    folder = interrupted(tmp_path / "out")
    file = folder.work / "run.json"
    file.unlink()
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with (
        pytest.raises(OutputError, match=r"run\.json' cannot be read, .*\nStart anew by --overwrite"),
        folder.claim(resume=True, overwrite=False),
    ):
        folder.remember({"epochs": 3.0})
    assert folder.last_checkpoint() is not None


def test_settings_are_compared_as_json_holds_them(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    with folder.claim(resume=False, overwrite=False):
        folder.remember({"columns": ("a", "b")})
        folder.remember({"columns": ("a", "b")})


def test_the_newest_complete_checkpoint_is_the_last_by_number(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    assert folder.last_checkpoint() is None
    for step in (9, 10, 2):
        checkpoint(folder, step)
    checkpoint(folder, 11, complete=False)
    (folder.checkpoints / "checkpoint-12").mkdir()
    (folder.checkpoints / "checkpoint-13").write_text("no folder", encoding="utf-8")
    other = folder.checkpoints / "checkpoint-best"
    other.mkdir()
    Seal.of(other).write(other)
    assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-10"
