"""What ``--overwrite`` may replace, and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frostline.errors import OutputError
from frostline.runs.output_folder import OutputFolder
from tests.training.outputs import fill, listing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "names", [["notes.txt"], ["proof.json"], ["proof.json", "metrics.json"], ["model.safetensors", "config.json"]]
)
def test_a_folder_that_no_run_left_is_not_overwritten(tmp_path: Path, names: list[str]) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for name in names:
        (target / name).write_text("{}", encoding="utf-8")
    with (
        pytest.raises(OutputError, match=r"out' shows no earlier run, so --overwrite does not replace it\.\nMove it"),
        OutputFolder(target).claim(resume=False, overwrite=True),
    ):
        pytest.fail("claimed")
    assert listing(tmp_path) == ["out"]
    assert listing(target) == sorted(names)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_was_put_beside_an_earlier_run_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    target = fill(tmp_path / "out")
    mine = target / "mine"
    if kind == "link":
        mine.symlink_to(tmp_path)
    else:
        (mine.touch if kind == "file" else mine.mkdir)()
    folder = OutputFolder(target)
    said = r"out' holds 'mine', which no run left; --overwrite would delete it\."
    with pytest.raises(OutputError, match=said), folder.claim(resume=False, overwrite=True):
        pytest.fail("claimed")
    mine.rename(tmp_path / "elsewhere")
    with (
        pytest.raises(OutputError, match=said),
        folder.claim(resume=False, overwrite=True),
        folder.publish(),
    ):
        (tmp_path / "elsewhere").rename(mine)  # while the run works
    assert mine.exists()


@pytest.mark.parametrize("place", ["out", "out/rows.csv", "out.partial/checkpoints/checkpoint-3", "link/rows.csv"])
def test_a_folder_that_holds_what_the_run_reads(tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to("out")
    for name in ("out", "out.partial"):
        (tmp_path / name).mkdir()
    folder = OutputFolder(tmp_path / "out")
    with pytest.raises(OutputError, match=r"holds the data of this run, .*\nChoose another --out\."):
        folder.refuse_to_hold(tmp_path / place, "data")
    folder.refuse_to_hold(tmp_path / "output" / "rows.csv", "data")
    folder.refuse_to_hold(tmp_path, "data")
