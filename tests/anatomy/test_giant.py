"""A classifier of 70 billion parameters is read from its configuration and headers alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest
import safetensors
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import frostline as fl
from frostline.evidence.inspect.inspection import inspect_model, open_skeleton
from tests.anatomy.giant import write_shards
from tests.processes import python

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, WIDTH, INNER, WORDS, KEYS = 80, 8192, 28_672, 128_256, 1024  # as in Llama 3 70B
LAYER = 2 * WIDTH * WIDTH + 2 * WIDTH * KEYS + 3 * WIDTH * INNER + 2 * WIDTH
PARAMETERS = WORDS * WIDTH + LAYERS * LAYER + WIDTH + 2 * WIDTH
SHARDS = 30
MEGABYTES = 700

_MEASURED = r"""
import re, sys
from frostline.evidence.inspect.inspection import inspect_model, open_skeleton
print(inspect_model(*open_skeleton(sys.argv[1])).parameters)
# getrusage would count the memory of the process that started this one
print(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


@pytest.fixture(scope="module")
def giant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a language model in 30 files."""
    folder = tmp_path_factory.mktemp("giant")
    probe = folder / "probe"
    with probe.open("wb") as opened:
        opened.truncate(1 << 30)
    if probe.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("the file system writes holes out")
    probe.unlink()
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=64,
        num_key_value_heads=8,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    size = write_shards(folder, model.state_dict(), SHARDS)
    assert size > 140e9
    return folder


def test_it_is_answered_without_its_weights(giant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    opened: list[str] = []

    class Watched:
        """Stands in for an open safetensors file: lets headers be read, and no values."""

        def __init__(self, file: Any, *arguments: Any, **options: Any) -> None:
            opened.append(str(file))
            self._file: Any = safetensors.safe_open(file, *arguments, **options)

        def __enter__(self) -> Self:
            self._file.__enter__()
            return self

        def __exit__(self, *arguments: object) -> None:
            self._file.__exit__(*arguments)

        def __getattr__(self, name: str) -> Any:
            assert name in {"keys", "offset_keys", "metadata", "get_slice"}, name
            return getattr(self._file, name)

    monkeypatch.setattr("transformers.modeling_utils.safe_open", Watched)
    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    monkeypatch.setattr("torch.load", refuse)
    inspection = inspect_model(*open_skeleton(str(giant)))
    assert len(opened) == SHARDS
    assert inspection.parameters == PARAMETERS > 69e9
    rows = {row.name: row for row in inspection.rows}
    assert list(rows) == ["head", "norm", "layers 0-79", "embeddings"]
    assert rows["layers 0-79"].units == LAYERS
    assert rows["layers 0-79"].parameters == LAYER
    assert rows["embeddings"].parameters == WORDS * WIDTH
    assert {name: row.origin for name, row in rows.items()} == {
        "head": "new",
        "norm": "pretrained",
        "layers 0-79": "pretrained",
        "embeddings": "pretrained",
    }
    assert inspection.origin.new == {"score.weight"}
    assert inspection.origin.unused == ("lm_head.weight",)


def test_nothing_of_it_has_values(giant: Path) -> None:
    model, _ = open_skeleton(str(giant))
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert len(fl.select(model, "layers[:40]").names) == 40 * 9


def test_it_takes_little_memory(giant: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(giant)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    parameters, kilobytes = map(int, done.stdout.split())
    assert parameters == PARAMETERS
    assert kilobytes < MEGABYTES * 1024


def test_the_command_answers_it(giant: Path) -> None:
    done = python("-m", "frostline", "inspect", giant, "--json", "--freeze", "backbone")
    assert (done.returncode, done.stderr) == (0, "")
    values = json.loads(done.stdout)
    assert values["parameters"] == PARAMETERS
    assert values["trainable_parameters"] == 2 * WIDTH


@pytest.mark.slow
def test_a_missing_shard_is_told(giant: Path, tmp_path: Path) -> None:
    for file in giant.iterdir():
        if file.name != f"model-00017-of-{SHARDS:05d}.safetensors":
            (tmp_path / file.name).symlink_to(file)
    done = python("-m", "frostline", "inspect", tmp_path)
    assert done.returncode == 2
    assert "of which 1 are missing: model-00017-of-00030.safetensors" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_from_its_configuration_alone(giant: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((giant / "config.json").read_bytes())
    inspection = inspect_model(*open_skeleton(str(tmp_path), from_config=True))
    assert inspection.parameters == PARAMETERS
    assert {row.origin for row in inspection.rows} == {"unknown"}
