"""Hub names whose weights are many files or one large one: of each, only the ranges of its header are asked for."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from tests.anatomy.giant import write_shards
from tests.checkpoints.test_hub import PREFIX, Hub, frostline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARDS = 3
# huggingface_hub asks for the first 100,000 bytes of a file, and again where its header is longer.
FIRST_RANGE = 100_001


class Noting(Hub):
    """Notes what was asked for as well."""

    def __init__(self, folder: Path, sent: list[tuple[str, int]], ranges: list[tuple[str, str]], *rest: object) -> None:
        self._ranges = ranges
        super().__init__(folder, sent, *rest)

    def _answer(self, *, body: bool) -> None:
        if body:
            self._ranges.append((self.path.removeprefix(PREFIX), self.headers.get("Range", "")))
        super()._answer(body=body)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backbone of 20 MB in three files."""
    config = BertConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, vocab_size=20_000
    )
    folder = tmp_path / "model"
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = BertModel(config)
    assert write_shards(folder, dict(model.named_parameters()), SHARDS) > 15e6
    return folder


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[str, list[tuple[str, int]], list[tuple[str, str]]]]:
    sent: list[tuple[str, int]] = []
    ranges: list[tuple[str, str]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Noting, folder, sent, ranges)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", sent, ranges
        server.shutdown()
        thread.join()


def test_of_every_file_only_the_header(
    served: tuple[str, list[tuple[str, int]], list[tuple[str, str]]], folder: Path, tmp_path: Path
) -> None:
    endpoint, sent, ranges = served
    home = tmp_path / "home"
    home.mkdir()
    done = frostline(endpoint, home, "inspect", "org/tiny", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    values = json.loads(done.stdout)
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig.from_pretrained(folder))
    assert values["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert values["new"] == ["classifier.bias", "classifier.weight"]
    assert values["unused"] == []

    files = sorted(file.name for file in folder.glob("*.safetensors"))
    asked = [(name, wanted) for name, wanted in ranges if name.endswith(".safetensors")]
    assert sorted({name for name, _ in asked}) == files
    assert all(wanted.startswith("bytes=") for _, wanted in asked)
    for name in files:
        fetched = sum(count for sent_name, count in sent if sent_name == name)
        assert 0 < fetched <= FIRST_RANGE < (folder / name).stat().st_size / 10
    assert not list(home.rglob("*.safetensors"))


def test_a_plan_is_tried_on_it_without_fetching_more(
    served: tuple[str, list[tuple[str, int]], list[tuple[str, str]]], folder: Path, tmp_path: Path
) -> None:
    endpoint, sent, _ = served
    home = tmp_path / "home"
    home.mkdir()
    done = frostline(endpoint, home, "inspect", "org/tiny", "--names", "--freeze", "embeddings, layers[:3]")
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert lines["bert.encoder.layer.2.output.dense.weight"] == "False"
    assert lines["bert.encoder.layer.3.output.dense.weight"] == "True"
    fetched = sum(count for name, count in sent if name.endswith(".safetensors"))
    assert fetched <= SHARDS * FIRST_RANGE


def test_a_name_that_the_hub_does_not_know(
    served: tuple[str, list[tuple[str, int]], list[tuple[str, str]]], tmp_path: Path
) -> None:
    endpoint, sent, _ = served
    home = tmp_path / "home"
    home.mkdir()
    done = frostline(endpoint, home, "inspect", "org/nothing")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "org/nothing" in done.stderr
    assert "Traceback" not in done.stderr
    assert 1 <= len(done.stderr.strip().splitlines()) <= 2
    assert not [name for name, _ in sent if name.endswith(".safetensors")]


def test_model_code_on_the_hub_is_neither_fetched_nor_run(
    served: tuple[str, list[tuple[str, int]], list[tuple[str, str]]], folder: Path, tmp_path: Path
) -> None:
    endpoint, _, ranges = served
    home, marker = tmp_path / "home", tmp_path / "marker"
    home.mkdir()
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\n", encoding="utf-8")
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "own", "auto_map": own}), encoding="utf-8")
    done = frostline(endpoint, home, "inspect", "org/tiny")
    assert done.returncode == 2
    assert "brings model code of its own, which is never run unasked" in done.stderr
    assert "--trust-remote-code" in done.stderr
    assert not [name for name, _ in ranges if name.endswith(".py")]
    assert not marker.exists()
