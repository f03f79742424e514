from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from transformers import BertForSequenceClassification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def test_nothing_found(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("check", bert, "--freeze", "embeddings, layers[0]")
    assert (done.status, done.out, done.err) == (0, "Nothing found.\n", "")


def test_a_warning(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("check", bert, "--freeze", "head")
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("Found 2 warnings")
    assert "warning: head-frozen (head)" in lines
    assert "warning: new-but-frozen (head)" in lines
    assert "  See docs/checks.md#head-frozen" in lines


def test_an_error(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("check", bert, "--freeze", "all")
    assert done.status == 1
    assert "error: everything-frozen" in done.out


@pytest.mark.parametrize("words", [["--freeze", "layers[1]"], ["--freeze", "backbone", "--frozen-mode", "train"]])
def test_notes_do_not_count(frostline: Callable[..., Done], bert: Path, words: list[str]) -> None:
    done = frostline("check", bert, *words)
    assert done.status == 0
    assert done.out.startswith("Found 1 note.")


def test_json(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline("check", bert, "--train-only", "layers[1]", "--json")
    values = json.loads(done.out)
    assert done.status == 1
    assert (values["ok"], values["worst"]) == (False, "warning")
    assert [row["slug"] for row in values["findings"]] == ["head-frozen", "new-but-frozen"]
    assert values["findings"][0]["names"] == ["classifier.weight", "classifier.bias"]


def test_with_rows_the_weights_are_run(
    frostline: Callable[..., Done], bert: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    forward = BertForSequenceClassification.forward

    def noted(self: BertForSequenceClassification, **given: object) -> object:
        ran.append((self.training, sorted(given)))
        return forward(self, **given)

    monkeypatch.setattr(BertForSequenceClassification, "forward", noted)
    assert frostline("check", bert, "--freeze", "backbone", "--data", table).out == "Nothing found.\n"
    assert ran == [(True, ["attention_mask", "input_ids", "labels"])]
    ran.clear()
    assert frostline("check", bert, "--freeze", "backbone").status == 0
    assert ran == []


def test_all_frozen_with_rows(frostline: Callable[..., Done], bert: Path, table: Path) -> None:
    done = frostline("check", bert, "--freeze", "all", "--data", table)
    assert done.status == 1
    assert "everything-frozen" in done.out


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["--freeze", "layers[7]"], "layers[7]"),
        (["--freeze", "head", "--train-only", "head"], "either freeze or train_only"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--nosuch"], "No such option"),
    ],
)
def test_what_cannot_be_used(refused: Callable[..., str], bert: Path, words: list[str], phrase: str) -> None:
    assert phrase in refused("check", bert, *words)


def test_a_model_that_is_not_there(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "nowhere" in refused("check", tmp_path / "nowhere")


def test_explain(frostline: Callable[..., Done]) -> None:
    done = frostline("check", "--explain", "ValueError: optimizer got an empty parameter list")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("torch: optimizer got an empty parameter list\n  The optimizer was given nothing")
    assert done.out.endswith("  See docs/checks.md#everything-frozen\n")


def test_explain_with_a_model(frostline: Callable[..., Done], bert: Path) -> None:
    text = "classifier.weight | MISSING | "
    done = frostline("check", bert, "--explain", text, "--json")
    values = json.loads(done.out)
    assert done.status == 0
    assert (values["slug"], values["units"], values["names"]) == ("new-but-frozen", ["head"], ["classifier.weight"])


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["--explain", "CUDA out of memory"], "'CUDA out of memory' is not among the messages"),
        (["a", "--model", "b", "--explain", "MISSING"], "Two models are named"),
    ],
)
def test_nothing_to_explain(refused: Callable[..., str], words: list[str], phrase: str) -> None:
    assert phrase in refused("check", *words)
