from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoModelForSequenceClassification

import frostline as fl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def flags_of(folder: Path, freeze: str | None = None, **options: Any) -> list[str]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    if freeze is not None:
        fl.freeze(model, freeze)
    return [f"{name} {parameter.requires_grad}" for name, parameter in model.named_parameters()]


def test_names_are_those_that_named_parameters_prints(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("inspect", bert, "--names")
    assert done.status == 0
    assert done.out.splitlines() == flags_of(bert)
    assert done.err == ""


@pytest.mark.parametrize("freeze", ["backbone", "embeddings, layers[0]", "all, ~head", "backbone, ~bias"])
def test_names_show_what_a_plan_does(frostline: Callable[..., Done], bert: Path, freeze: str) -> None:
    done = frostline("inspect", bert, "--names", "--freeze", freeze)
    assert done.out.splitlines() == flags_of(bert, freeze)
    assert any(line.endswith("False") for line in done.out.splitlines())


def test_train_only(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("inspect", bert, "--names", "--train-only", "head")
    assert [line for line in done.out.splitlines() if line.endswith("True")] == [
        "classifier.weight True",
        "classifier.bias True",
    ]


def test_the_table(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("inspect", bert)
    lines = done.out.splitlines()
    assert lines[0] == ("Nothing is frozen: fine-tuning updates all 8,402 parameters, the pretrained ones included.")
    words = [line.split() for line in lines]
    assert ["head", "34", "yes", "new", "-", "136", "B", "-"] in words
    assert any(row[:6] == ["layers", "0-1", "2", "×", "2,224", "yes"] for row in words)
    assert [row[0] for row in words if row and row[0] in {"head", "pooler", "embeddings"}] == [
        "head",
        "pooler",
        "embeddings",
    ]


def test_the_table_of_a_plan(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("inspect", bert, "--freeze", "embeddings, layers[0]")
    assert done.out.startswith("Partly frozen: fine-tuning updates 2,530 of 8,402 parameters (30 %)")
    rows = {line.split()[0]: line.split() for line in done.out.splitlines()[2:] if line.split()}
    assert rows["embeddings"][2:5] == ["no", "pretrained", "eval"]
    by_train = frostline("inspect", bert, "--freeze", "embeddings", "--frozen-mode", "train")
    rows = {line.split()[0]: line.split() for line in by_train.out.splitlines()[2:] if line.split()}
    assert rows["embeddings"][2:5] == ["no", "pretrained", "train"]


def test_json(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("inspect", bert, "--json", "--freeze", "backbone", "--num-labels", 5)
    found = json.loads(done.out)
    assert found["names"] == {
        line.split()[0]: line.split()[1] == "True" for line in flags_of(bert, "backbone", num_labels=5)
    }
    assert found["trainable_parameters"] == 5 * 17
    assert set(found["new"]) == {"classifier.weight", "classifier.bias"}
    assert sum(row["parameters"] * row["units"] for row in found["rows"]) == found["parameters"]


def test_the_weights_themselves_are_not_read(
    frostline: Callable[..., Done], bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForSequenceClassification

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(BertForSequenceClassification, "to_empty", lambda *_, **__: pytest.fail("filled"))
    assert frostline("inspect", bert).status == 0


def test_a_trained_folder_has_nothing_new(frostline: Callable[..., Done], trained: Path) -> None:
    assert json.loads(frostline("inspect", trained, "--json").out)["new"] == []


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["--freeze", "layers[7]"], "layers"),
        (["--freeze", "encoder.layer.1"], "encoder.layer.1"),
        (["--freeze", "head", "--train-only", "head"], "either freeze or train_only"),
        (["--num-labels", "0"], "'--num-labels'"),
        (["--num-labels", "99999999999999"], "num_labels is 99999999999999, and at most 1,000,000 can be built"),
        (["--frozen-mode", "other"], "'--frozen-mode'"),
        (["--nosuch"], "No such option"),
        (["second"], "unexpected extra argument"),
    ],
)
def test_what_cannot_be_used(refused: Callable[..., str], bert: Path, words: list[str], phrase: str) -> None:
    assert phrase in refused("inspect", bert, *words)


def test_a_slice_beyond_the_stack_is_said_once(
    frostline: Callable[..., Done], bert: Path, table: Path, tmp_path: Path
) -> None:
    said = "layers[:8] reaches beyond BertForSequenceClassification's layers, 0 to 1: it means all 2 of them.\n"
    done = frostline("inspect", bert, "--freeze", "layers[:8]")
    assert (done.status, done.err) == (0, said)
    words = ("--model", bert, "--data", table, "--out", tmp_path / "out", "--epochs", 1)
    assert frostline("train", *words, "--freeze", "layers[:8]").err == said
