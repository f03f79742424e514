"""That tests leave nothing where whoever runs them would find it."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from frostline.store.folder import default_folder
from tests import outside
from tests.processes import python
from tests.training import tiny
from tests.training.conftest import bert, datasets_cache, on_this_machine

__all__ = ["bert", "datasets_cache", "on_this_machine"]

USER = Path(pwd.getpwuid(os.getuid()).pw_dir)


@pytest.mark.parametrize("kind", ["write", "append", "low level", "folder", "link"])
def test_what_is_written_elsewhere_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outside, "_ALLOWED", (str(tmp_path / "allowed"),))
    (tmp_path / "allowed").mkdir()
    outside.written.clear()
    for folder in (tmp_path / "allowed", tmp_path):
        match kind:
            case "write":
                (folder / "x").write_text("")
            case "append":
                (folder / "x").open("a").close()
            case "low level":
                os.close(os.open(folder / "x", os.O_CREAT))
            case "folder":
                (folder / "x").mkdir()
            case "link":
                (folder / "x").symlink_to("y")
    assert outside.written == [str(Path(os.path.realpath(tmp_path)) / "x")]
    outside.written.clear()


def test_the_home_folder_is_a_temporary_one() -> None:
    for place in (Path.home(), default_folder(), Path("~").expanduser()):
        assert str(place).startswith(tempfile.gettempdir())
    from huggingface_hub import constants

    assert str(constants.HF_HOME).startswith(tempfile.gettempdir())
    assert not set(outside.CACHES) & os.environ.keys()


def test_stores_of_a_run_are_not_left_with_the_user(tmp_path: Path) -> None:
    """A process of its own, with a store on disk at its usual place, as many a test of the command starts it."""

    def left() -> set[str]:
        places = (USER / ".cache" / "frostline" / "store", Path(os.path.realpath(default_folder())))
        return {str(store) for place in places if place.is_dir() for store in place.iterdir()}

    model = tiny.save_bert(tmp_path / "model", intermediate_size=24)  # whose store no other test has made
    before = left()
    data = tiny.write_csv(tmp_path / "rows.csv", tiny.rows(8))
    words = ["train", "--model", model, "--data", data, "--out", tmp_path / "out", "--epochs", 1, "--store", "disk"]
    frozen = ["--freeze", "embeddings, layers[0]"]
    done = python("-m", "frostline", *words, *frozen)
    assert done.returncode == 0, done.stderr
    (new,) = left() - before
    assert new.startswith(str(default_folder()))
    assert not new.startswith(str(USER))
