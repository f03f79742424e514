"""Which table a source names."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest

from frostline.data import named
from frostline.data.named import DataName
from frostline.data.sources import is_file, read_table

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "hub_in_reach", lambda: False)


@pytest.fixture
def folder(write: Callable[..., str]) -> str:
    write("reviews/train.csv", "text,label\nNA,1\nnull,0\n")
    write("reviews/validation.csv", "text,label\nb,1\n")
    return str(Path(write("reviews/test.csv", "text,label\nc,1\n")).parent)


def test_what_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").write_text("a")
    Path("folder").mkdir()
    for source in ("x.csv", "X.TSV", "a/b.jsonl", "./imdb", "/imdb", "~/imdb", "plain", "x.xlsx"):
        assert is_file(source), source
    for source in ("imdb", "org/name", "glue:mrpc:train", "org/data-v1.1", "folder"):
        assert not is_file(source), source


def test_a_missing_file_has_near_names(
    write: Callable[..., str], data_error: Callable[..., Any], tmp_path: Path
) -> None:
    write("train.csv", "text\na\n")
    write("other.jsonl", "{}")
    with data_error("trian.csv' does not exist", "Did you mean", str(tmp_path / "train.csv")):
        read_table(str(tmp_path / "trian.csv"), role="train")
    with data_error("zzzzz.parquet' does not exist", "Check the path"):
        read_table(str(tmp_path / "zzzzz.parquet"), role="train")
    with data_error("nor does its folder", "missing"):
        read_table(str(tmp_path / "missing" / "train.csv"), role="train")


@pytest.mark.parametrize("target", ["loop", "gone"])
@pytest.mark.parametrize("ending", ["", ".csv"])
def test_a_link_that_leads_to_nothing(
    data_error: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"loop{ending}").symlink_to(f"{target}{ending}")
    with data_error(f"'loop{ending}' is a link to '{target}{ending}', which leads to nothing.\nMend the link"):
        read_table(f"loop{ending}", role="train")


def test_a_packed_file_is_to_be_unpacked(write: Callable[..., str], data_error: Callable[..., Any]) -> None:
    with data_error(".gz files are not supported", "Unpack it first: it is packed by gzip."):
        read_table(write("rows.csv.gz", gzip.compress(b"text\na\n")), role="train")


def test_a_file_has_no_splits(
    write: Callable[..., str], data_error: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write("train.csv", "text\na\n")
    with data_error("a file has no splits", f"{source!r}"):
        read_table(source + ":train", role="train")
    monkeypatch.chdir(Path(source).parent)
    with data_error("a file has no splits", "'train.csv'"):
        read_table("train.csv:train", role="train")


@pytest.mark.parametrize("source", ["", "  ", "a\0b", "imdb:", "a:b:c:d", ":train", "hf://x/y"])
def test_no_source_at_all(data_error: Callable[..., Any], source: str) -> None:
    with data_error("names no data"):
        read_table(source, role="train")


def test_a_name_too_long(data_error: Callable[..., Any]) -> None:
    with data_error("cannot be read"):
        read_table("/" + "a" * 5000 + ".csv", role="train")


def test_parts_of_a_name() -> None:
    parse = DataName.parse
    assert parse("imdb") == DataName("imdb", "imdb")
    assert parse("a/b:test") == DataName("a/b:test", "a/b", None, "test")
    assert parse("glue:mrpc:train[:10%]").split == "train[:10%]"
    assert parse("glue:mrpc:train[:10%]").config == "mrpc"


@pytest.mark.parametrize(("role", "texts"), [("train", ["NA", "null"]), ("eval", ["b"]), ("predict", ["c"])])
def test_the_split_follows_the_role(folder: str, role: named.Role, texts: list[str]) -> None:
    assert read_table(folder, role=role)["text"][:] == texts


def test_a_named_split(folder: str, data_error: Callable[..., Any]) -> None:
    assert read_table(folder + ":test", role="train")["text"][:] == ["c"]
    assert read_table(folder + ":train[1:]", role="eval")["text"][:] == ["null"]
    with data_error("no split 'tset'", "Did you mean 'test'?", "'train', 'validation', 'test'"):
        read_table(folder + ":tset", role="train")


def test_splits_that_are_not_there(write: Callable[..., str], data_error: Callable[..., Any]) -> None:
    folder = str(Path(write("only/train.csv", "text,label\na,1\n")).parent)
    with data_error("no split 'validation' or 'test'", "there are 'train'", ":train"):
        read_table(folder, role="eval")
    assert len(read_table(folder, role="predict")) == 1


def test_a_folder_without_data(tmp_path: Path, write: Callable[..., str], data_error: Callable[..., Any]) -> None:
    for split in ("", ":train", ":config:train"):
        with data_error("is a folder without any data in it.\nName a file") as caught:
            read_table(f"{tmp_path}{split}", role="train")
        assert "partial" not in str(caught.value)
    write("folder.csv/notes.md", "# none")
    with data_error("is a folder"):
        read_table(str(tmp_path / "folder.csv"), role="train")


def test_configurations(write: Callable[..., str], data_error: Callable[..., Any]) -> None:
    write("sets/small/train.csv", "text\ns\n")
    write("sets/large/train.csv", "text\nl\n")
    card = "\n".join(f"- config_name: {name}\n  data_files: {name}/train.csv" for name in ("small", "large"))
    folder = str(Path(write("sets/README.md", f"---\nconfigs:\n{card}\n---\n")).parent)
    assert read_table(folder + ":large:train", role="train")["text"][:] == ["l"]
    assert read_table(folder + ":small", role="train")["text"][:] == ["s"]
    with data_error("needs a configuration, one of 'small', 'large'"):
        read_table(folder, role="train")
    with data_error("no configuration 'larg'", "Did you mean 'large'?"):
        read_table(folder + ":larg:train", role="train")


def test_saved_to_disk(tmp_path: Path, data_error: Callable[..., Any]) -> None:
    one = datasets.Dataset.from_dict({"text": ["a"], "label": [1]})
    one.save_to_disk(str(tmp_path / "one"))
    assert len(read_table(str(tmp_path / "one"), role="train")) == 1
    with data_error("one table without splits"):
        read_table(str(tmp_path / "one") + ":train", role="train")
    splits = datasets.DatasetDict({"train": one, "dev": one})
    splits.save_to_disk(str(tmp_path / "two"))
    assert len(read_table(str(tmp_path / "two") + ":dev", role="train")) == 1
    with data_error("no split 'validation' or 'test'", "'train', 'dev'"):
        read_table(str(tmp_path / "two"), role="eval")


@pytest.mark.usefixtures("offline")
def test_a_hub_name_without_a_network(data_error: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    with data_error("no file or folder 'imdb'", "hub cannot be reached"):
        read_table("imdb", role="train")
    with data_error("no file or folder 'data/train'", "hub cannot be reached"):
        read_table("data/train:test", role="train")
    assert time.perf_counter() - start < 5
    assert not datasets.config.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")


def test_what_may_never_end_is_not_read(data_error: Callable[..., Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")  # which nobody writes
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "endless.csv"):
        with data_error(name, "is a pipe or a device, and no file", "Write what it gives to a file"):
            read_table(str(tmp_path / name), role="train")


@pytest.mark.usefixtures("offline")
def test_a_path_that_is_no_hub_name(data_error: Callable[..., Any]) -> None:
    with data_error("no file or folder 'a/b/c'", "NAME or OWNER/NAME"):
        read_table("a/b/c", role="train")


def test_a_hub_name_that_does_not_exist(data_error: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.exceptions import DatasetNotFoundError

    def absent(*args: Any, **kwargs: Any) -> None:
        raise DatasetNotFoundError("Dataset 'no/such' doesn't exist on the Hub.")

    monkeypatch.setattr(named, "hub_in_reach", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset_builder", absent)
    with data_error("no data set of that name", "no/such", "log in"):
        read_table("no/such", role="train")


def test_anything_else_that_goes_wrong(data_error: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("Dataset scripts are no longer supported,\nbut found x.py")

    monkeypatch.setattr(named, "hub_in_reach", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with data_error("cannot be read as a data set", "scripts are no longer supported"):
        read_table("no/such", role="train")
