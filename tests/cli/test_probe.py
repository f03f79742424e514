from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.fixture
def probe(frostline: Callable[..., Done], bert: Path, table: Path) -> Callable[..., Done]:
    def _probe(*words: Any) -> Done:
        return frostline("probe", bert, "--data", table, "--batch-size", 4, *words)

    return _probe


def test_what_is_printed(probe: Callable[..., Done]) -> None:
    done = probe("--freeze", "embeddings, layers[0]")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "A step changes 20 of 41 parameter tensors: layers[1], pooler, head."
    titles = [
        "unit",
        "trains",
        "gradient",
        "in optimizer",
        "learning rate",
        "moved",
        "relative change",
        "buffers moved",
    ]
    assert lines[2].split() == " ".join(titles).split()
    cells = {line[:10].strip(): line[10:].split() for line in lines[4:9]}
    assert list(cells) == ["head", "pooler", "layer 1", "layer 0", "embeddings"]
    assert cells["head"][:5] == ["yes", "yes", "yes", "5e-05", "yes"]
    assert cells["layer 0"] == ["no", "none", "no", "-", "no", "-", "-"]
    assert lines[-1].startswith("Optimizer: AdamW, learning rate 5e-05 (built for the probe); loss 0.")


def test_a_row_per_parameter(probe: Callable[..., Done]) -> None:
    done = probe("--train-only", "head", "--parameters", "--lr", "0.01")
    assert done.status == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()[4:-2]}
    assert len(rows) == 41
    assert rows["classifier.weight"][:5] == ["yes", "yes", "yes", "0.01", "yes"]
    assert rows["classifier.bias"][-2:] == ["from", "0"]
    assert rows["bert.pooler.dense.weight"] == ["no", "none", "no", "-", "no", "-"]


def test_json_and_the_seed(probe: Callable[..., Done]) -> None:
    first, again, other = (probe("--json", "--seed", seed).out for seed in (1, 1, 2))
    assert first == again != other
    found = json.loads(first)
    assert found["ok"] is True
    assert found["changes"] == "all"
    assert len(found["parameters"]) == 41


def test_a_surprise_is_a_finding(probe: Callable[..., Done]) -> None:
    done = probe("--lr", 0)
    assert done.status == 1
    assert done.out.startswith("A step changes none of the 41 parameter tensors; 41 trainable by flag, but unmoved (")
    assert "(learning rate 0): bert.embeddings.word_embeddings.weight, " in done.out


def test_mixed_precision_and_other_labels(probe: Callable[..., Done]) -> None:
    done = probe("--dtype", "bf16", "--device", "cpu", "--frozen-mode", "train", "--freeze", "backbone")
    assert done.status == 0
    assert done.out.startswith("A step changes 2 of 41 parameter tensors: head.")


def test_the_files_are_left_alone(probe: Callable[..., Done], bert: Path) -> None:
    before = tiny.weights(bert)
    times = {file: file.stat().st_mtime_ns for file in bert.iterdir()}
    assert probe().status == 0
    assert {file: file.stat().st_mtime_ns for file in bert.iterdir()} == times
    assert before.keys() == tiny.weights(bert).keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--freeze", "layers[9]"), "layers[9]"),
        (("--freeze", "head", "--train-only", "head"), "either freeze or train_only"),
        (("--label-column", "nosuch"), "nosuch"),
        (("--dtype", "fp16"), "dtype is 'fp16'"),
        (("--batch-size", "0"), "--batch-size"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_what_cannot_be_used(
    refused: Callable[..., str], bert: Path, table: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in refused("probe", bert, "--data", table, *words)
