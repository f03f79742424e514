from __future__ import annotations

import errno
import json
import os
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from frostline.checkpoints.headers import weight_files
from frostline.checkpoints.reading import read_headers
from frostline.checkpoints.source import Source, locate
from frostline.errors import ModelError
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Opaque:
    """Something that no file of weights holds; unpickling it would run code of its own."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        from pathlib import Path

        return Path.touch, ("marker",)


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return tiny.copy_of(bert, tmp_path / "model")


def pickled(model: Path) -> Path:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(tensors, model / "pytorch_model.bin")
    return model / "pytorch_model.bin"


def sharded(model: Path) -> list[Path]:
    tensors = sorted(load_file(model / "model.safetensors").items())
    (model / "model.safetensors").unlink()
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for number in range(3):
        file = model / f"model-0000{number + 1}-of-00003.safetensors"
        part = dict(tensors[number::3])
        save_file(part, file, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(part, file.name)
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return sorted(model.glob("model-*.safetensors"))


def error_of(model: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_headers(locate(str(model)))
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 2, text
    return text


def assert_headers(model: Path, expected: Path) -> None:
    held = tiny.weights(expected)
    headers = read_headers(locate(str(model)))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in headers.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in held.items()
    }
    assert {tensor.device.type for tensor in headers.values()} == {"meta"}


def test_a_file_that_may_not_be_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model / "model.safetensors"
    plain_open = type(file).open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return plain_open(self, *args, **kwargs)

    def as_safetensors(_: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(type(file), "open", refuse)
    monkeypatch.setattr("frostline.checkpoints.headers.without_values", as_safetensors)
    assert error_of(model) == f"The weights '{file}' cannot be read: Permission denied.\nChange its permissions."


def test_names_shapes_and_dtypes_without_values(bert: Path) -> None:
    assert_headers(bert, bert)


def test_dtypes_are_those_of_the_file(model: Path) -> None:
    tensors = tiny.weights(model)
    save_file(
        {name: tensor.bfloat16() for name, tensor in tensors.items()},
        model / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert {tensor.dtype for tensor in read_headers(locate(str(model))).values()} == {torch.bfloat16}


def test_shards(model: Path, bert: Path) -> None:
    shards = sharded(model)
    assert weight_files(model, "model") == shards
    assert_headers(model, bert)


def test_a_pickle_of_nothing_but_tensors(model: Path, bert: Path) -> None:
    pickled(model)
    assert_headers(model, bert)


def test_safetensors_come_before_a_pickle(model: Path, bert: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"never read")
    assert_headers(model, bert)


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    text = error_of(model)
    assert "has a config.json but no weights (model.safetensors or pytorch_model.bin)" in text
    assert str(model) in text


@pytest.mark.parametrize("cut", [-1, -5000, 4000, 100, 7, 0])
def test_a_file_that_is_cut(model: Path, cut: int) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    text = error_of(model)
    assert f"'{file}' are damaged" in text
    assert f"{file.stat().st_size:,} bytes" in text
    assert "Copy the file anew" in text


@pytest.mark.parametrize(
    "content",
    [
        b"\x93" * 4000,
        struct.pack("<Q", 64) + b"{" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        b"<!DOCTYPE html><html>Not found</html>" * 20,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n",
    ],
    ids=["noise", "no JSON", "an endless header", "a web page", "a pointer to the file"],
)
def test_a_file_that_is_something_else(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "are damaged" in error_of(model)


def test_a_shard_that_is_missing(model: Path) -> None:
    shards = sharded(model)
    shards[1].unlink()
    text = error_of(model)
    assert "names 3 files, of which 1 are missing: model-00002-of-00003.safetensors" in text


def test_a_shard_that_is_cut(model: Path) -> None:
    shards = sharded(model)
    shards[2].write_bytes(shards[2].read_bytes()[:-3])
    assert "model-00003-of-00003.safetensors' are damaged" in error_of(model)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}', b'{"weight_map": {}}', b"\xff\xfe"],
)
def test_an_index_that_is_broken(model: Path, content: bytes) -> None:
    sharded(model)
    (model / "model.safetensors.index.json").write_bytes(content)
    assert "model.safetensors.index.json" in error_of(model)


def test_an_index_leads_to_no_file_outside_its_folder(model: Path, bert: Path) -> None:
    sharded(model)
    index = {"weight_map": {"a": f"../../{bert.name}/model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "1 are missing: model.safetensors" in error_of(model)


def test_a_pickle_that_holds_more_than_tensors_is_not_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = pickled(model)
    torch.save({"weight": torch.zeros(2), "own": Opaque()}, file)
    text = error_of(model)
    assert "a pickle with more than tensors in it; loading it could run foreign code" in text
    assert not (tmp_path / "marker").exists()


def test_an_older_form_of_pickle(model: Path, bert: Path) -> None:
    file = pickled(model)
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    assert_headers(model, bert)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("keep", [0, 2, 10, 1000])
def test_a_pickle_that_is_cut(model: Path, old: bool, keep: int) -> None:
    file = pickled(model)
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=not old)
    file.write_bytes(file.read_bytes()[:keep])
    text = error_of(model)
    assert str(file) in text
    assert "damaged" in text or "cannot be read" in text


def test_a_pickle_that_is_a_web_page(model: Path) -> None:
    pickled(model).write_bytes(b"<!DOCTYPE html>")
    assert "are damaged, or a pickle with more than tensors" in error_of(model)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"state_dict": {"a": torch.zeros(2)}, "epoch": 3}])
def test_a_pickle_of_something_else_than_a_table_of_tensors(model: Path, content: Any) -> None:
    torch.save(content, pickled(model))
    assert "are no table of names and tensors" in error_of(model)


def test_a_hub_name_without_a_network_is_told_soon() -> None:
    begun = time.perf_counter()
    with pytest.raises(ModelError, match=r"no folder here, is not in the hub's cache, and the hub cannot be reached"):
        read_headers(Source("no-such-org/no-such-model", None))
    assert time.perf_counter() - begun < 5  # the hub's own client would retry for half a minute
