from __future__ import annotations

from pathlib import Path

import pytest

from frostline.checkpoints.source import locate
from frostline.errors import ModelError


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one model in it and one in a folder below."""
    for folder in ("german-bert", "runs/first"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "file.bin").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def error_of(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        locate(name)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 2, text
    return text


@pytest.mark.parametrize("name", ["german-bert", "./german-bert", "german-bert/", "runs/first", "~/german-bert"])
def test_a_folder(models: Path, name: str) -> None:
    source = locate(name)
    assert source.folder is not None
    assert source.folder.resolve() in {models / "german-bert", models / "runs" / "first"}
    assert "~" not in source.name


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", ["bert-base-uncased", "dbmdz/bert-base-german-cased", "german-bart"])
def test_a_hub_name(name: str) -> None:
    source = locate(name)
    assert source.name == name
    assert source.folder is None


@pytest.mark.usefixtures("models")
def test_a_folder_of_the_same_name_comes_before_the_hub() -> None:
    assert locate("runs/first").folder == Path("runs/first")


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("./german-bret", ["There is no folder './german-bret'", "Did you mean 'german-bert'?"]),
        ("runs/frist/", ["There is no folder", "Did you mean 'runs/first'?"]),
        ("./zzz", ["There is no folder './zzz'", "Give a folder that exists, or a hub name (org/model)."]),
        ("no/such/folder", ["There is no folder 'no/such/folder'"]),
        ("C:\\models\\bert", ["There is no folder"]),
        ("~/nothing", ["There is no folder '~/nothing'"]),
        ("~nosuchuser/bert", ["There is no folder '~nosuchuser/bert'"]),
        ("file.bin", ["'file.bin' is a file; a model is a folder"]),
        ("./file.bin", ["is a file"]),
        ("runs", ["holds no config.json", "It has folders that are: first."]),
        ("", ["holds no config.json", "german-bert"]),
        ("a\0b", ["'a\\x00b' is no name: it holds a zero byte.", "Give a folder, or a hub name."]),
        ("org/a b", ["There is no folder 'org/a b', and the hub has no such names."]),
        ("a\ud800b", ["There is no folder 'a\\ud800b', and the hub has no such names."]),
        ("x" * 300, ["There is no folder", "File name too long"]),
        ("./" + "x" * 300, ["There is no folder", "File name too long"]),
    ],
)
def test_what_leads_to_no_model(name: str, phrases: list[str]) -> None:
    text = error_of(name)
    for phrase in phrases:
        assert phrase in text, text


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "Give the folder that save_pretrained wrote." in error_of(str(tmp_path))


@pytest.mark.parametrize("target", ["loop", "gone"])
def test_a_link_that_leads_to_nothing(models: Path, target: str) -> None:
    (models / "loop").symlink_to(target)
    assert f"'loop' is a link to '{target}', which leads to nothing.\nMend the link" in error_of("loop")


def test_a_name_to_note_down_needs_no_folder_on_the_way(models: Path) -> None:
    assert locate("runs/../german-bert").lasting_name == str(models.resolve() / "german-bert")
    (models / "newest").symlink_to("german-bert")
    assert locate("newest").lasting_name == str(models / "newest")
