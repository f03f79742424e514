from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import pytest
import torch

from frostline.errors import StoreError
from frostline.store.spec import StoreKey, StreamSpec, installed_versions
from tests.store.building import STREAMS, key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prefix": "x"}, "the prefix's weights differ"),
        ({"config": "x"}, "the model's configuration differs"),
        ({"inputs": "x"}, "the tokenizer or the truncation differs"),
        ({"boundary": "layer 5"}, "taken at layer 5 instead of layer 4"),
        ({"dtype": "float16"}, "stored as float16 instead of float32"),
        ({"attention": "eager"}, "attention by eager instead of sdpa"),
        ({"versions": {"torch": "2.14.0"}}, "torch 2.14.0 instead of 2.13.0"),
        ({"versions": {}}, "torch unknown instead of 2.13.0"),
    ],
)
def test_each_difference_makes_another_key(change: dict[str, Any], words: str) -> None:
    assert key(**change).digest() != key().digest()
    assert key(**change).differences(key()) == [words]


def test_equal_keys() -> None:
    twin = StoreKey.from_dict(json.loads(json.dumps(key().to_dict())))
    assert (twin, twin.digest(), twin.differences(key())) == (key(), key().digest(), [])
    assert len(key().digest()) == 64
    a, b = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    assert key(versions=a).digest() == key(versions=b).digest()


def test_the_installed_versions_are_the_default() -> None:
    made = StoreKey("p", "c", "i", "b", "d", "a")
    assert made.versions == installed_versions()
    assert made.versions["torch"] == version("torch")
    assert set(made.versions) == {"torch", "transformers", "frostline"}


@pytest.mark.parametrize("change", [{"prefix": 3}, {"versions": None}, {"versions": {"a": 1}}, {"more": ""}])
def test_a_hostile_key(change: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        StoreKey.from_dict(key().to_dict() | change)


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_there_and_back(stream: StreamSpec) -> None:
    assert StreamSpec.from_dict(json.loads(json.dumps(stream.to_dict()))) == stream


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"name": "x" * 5000},
        {"shape": "3"},
        {"shape": [True]},
        {"shape": [1.5]},
        {"shape": [0]},
        {"shape": [-3]},
        {"shape": [2**31, 2**31]},
        {"shape": [1] * 9},
        {"dtype": "complex64"},
        {"dtype": "load"},
        {"dtype": ["float32"]},
        {"more": 1},
    ],
)
def test_a_hostile_stream(change: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        StreamSpec.from_dict(STREAMS[0].to_dict() | change)
    with pytest.raises(StoreError, match="not described"):
        StreamSpec.from_dict([])


def test_streams_that_no_store_holds() -> None:
    with pytest.raises(StoreError, match="holds no complex64"):
        StreamSpec("x", (3,), torch.complex64)
    with pytest.raises(StoreError, match="which no store holds"):
        StreamSpec("x", (3, 0), torch.float32)
