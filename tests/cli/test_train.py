from __future__ import annotations

import errno
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from frostline.base.sealing import Seal
from frostline.runs.output_folder import OutputFolder
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

LEFT = {"README.md", "config.json", "metrics.json", "model.safetensors", "plan.json", "proof.json", "tokenizer.json"}


def test_what_is_printed(train: Callable[..., Done], table: Path, tmp_path: Path) -> None:
    done = train("--eval", table, "--freeze", "embeddings, layers[0]", "--epochs", 2)
    assert done.status == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("Partly frozen: fine-tuning updates 2,530 of 8,402 parameters (30 %)")
    assert any(line.startswith("Data: 24 rows, ") and line.endswith("24 rows for evaluation.") for line in lines)
    assert "Training: epochs 2, batch size 8, learning rate 0.001, seed 42." in lines
    assert "Chosen: learning rate 0.001 for 1 layer." in lines
    warning = "Warning: 6 steps at 0.001 will hardly move new weights; rather --epochs 100 --lr 0.001."
    (estimate,) = [place for place, line in enumerate(lines) if line.startswith("Estimate: ")]
    assert lines.index(warning) < estimate < lines.index(next(line for line in lines if line.startswith("epoch 1:")))
    assert re.search(r" per epoch\), .* of memory above the libraries; everything would take ", lines[estimate])
    assert lines[estimate + 1].startswith("It reckons with matrix products 16 wide, measured on this machine at ")
    assert re.fullmatch(r"Took: .* without evaluations, .* of memory with them; the estimate was .*\.", lines[-3])
    kept = next(place for place, line in enumerate(lines) if line.startswith("Kept model (of epoch "))
    assert lines[kept + 1] == "Baseline (always 'bad'): accuracy 0.5000, macro F1 0.3333, loss 0.6931"
    assert lines[kept + 2].startswith("Learned too little: the training loss ended at 0.")
    assert lines[kept + 3] == 'First mend what the warning names. Thaw the next unit: --freeze "embeddings".'
    assert [line[:8] for line in lines if line.startswith("epoch ")] == ["epoch 1:", "epoch 2:"]
    (proof,) = [line for line in lines if line.startswith("Proof: ")]
    assert "frozen tensors bit-identical; 20 of 20 others moved" in proof
    assert lines[-2:] == [
        f"The model is in {tmp_path / 'out'}; it carries plan, proof, metrics and a model card.",
        f"Digest of its files: {Seal.of(tmp_path / 'out').digest}.",
    ]
    assert {file.name for file in (tmp_path / "out").iterdir()} >= LEFT
    assert {entry.name for entry in tmp_path.iterdir()} == {"rows.csv", "out"}


def test_json(train: Callable[..., Done], table: Path, tmp_path: Path) -> None:
    done = train("--eval", table, "--json", "--train-only", "head")
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert found.pop("folder") == str(tmp_path / "out")
    assert found.pop("digest") == Seal.of(tmp_path / "out").digest
    written.pop("history")
    assert found == written
    assert found["settings"]["train_only"] == "head"
    assert found["estimate"]["seconds"]["total"] > 0
    assert found["took"]["seconds"] < found["seconds"]
    assert isinstance(found["took"]["peak_bytes"], int)  # 0 where what earlier tests have left is enough for it
    assert found["trainable_parameters"] == 34


def test_every_option_reaches_the_run(train: Callable[..., Done], table: Path, tmp_path: Path) -> None:
    words = ["--eval", table, "--freeze", "embeddings", "--frozen-mode", "train", "--epochs", 0.5, "--lr", 0.25]
    words += ["--batch-size", 3, "--max-length", 20, "--seed", 9, "--text-column", "text", "--label-column", "label"]
    words += ["--problem-type", "multi_label_classification", "--dtype", "bf16", "--device", "cpu", "--limit", 7]
    words += ["--store", "disk", "--store-dir", tmp_path / "store", "--store-budget", "1GB", "--store-dtype", "fp16"]
    done = train(*words, "--no-padding-free", "--no-engine", "--patience", 2, "--json")
    assert done.status == 0, done.err
    values = json.loads(done.out)
    assert values["estimate"] is None  # it reckons with the engine
    settings = values["settings"]
    del settings["model"], settings["data"], settings["eval_data"]
    assert settings == {
        "freeze": "embeddings",
        "train_only": None,
        "schedule": None,
        "lora": None,
        "dora": None,
        "peft": None,
        "rank": None,
        "alpha": None,
        "targets": None,
        "merge": False,
        "frozen_mode": "train",
        "epochs": 0.5,
        "learning_rate": 0.25,
        "batch_size": 3,
        "max_length": 20,
        "seed": 9,
        "text_columns": ["text"],
        "label_columns": ["label"],
        "problem_type": "multi_label_classification",
        "dtype": "bf16",
        "device": "cpu",
        "limit": 7,
        "patience": 2,
        "engine": False,
        "store": "disk",
        "store_dir": str(tmp_path / "store"),
        "store_budget": "1GB",
        "store_dtype": "fp16",
        "padding_free": False,
        "trust_remote_code": False,
        "allow_new_frozen": False,
    }


def test_what_the_engine_did_is_told(
    train: Callable[..., Done], frostline: Callable[..., Done], tmp_path: Path, bert: Path
) -> None:
    words = ("--freeze", "embeddings, layers[0]", "--store", "disk", "--store-dir", tmp_path / "store", "--explain")
    done = train(*words)
    assert done.status == 0, done.err
    line = "Engine: replay from layer 1, padding-free, last layer for the first token only"
    (told,) = [own for own in done.out.splitlines() if own.startswith("Engine: ")]
    assert told.startswith(line)
    assert "; activations on disk (" in told
    assert told.endswith("): as asked for.")
    assert "replay: yes, " in done.out
    assert "Filled: 24 rows computed in " in done.out
    engine = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["engine"]
    assert engine["line"] == told
    assert engine["rows"] == engine["computed"] == 24
    (store,) = json.loads(frostline("store", "list", "--store-dir", tmp_path / "store", "--json").out)
    assert store["rows"] == 24
    assert str(bert).endswith(store["model"])
    again = train(*words, "--overwrite")
    assert "Filled: " not in again.out


def test_strange_sizes_and_stores_are_refused(refused_train: Callable[..., str]) -> None:
    told = "The store's budget is 'many', which is no size.\nWrite it as '4GB' or '512MiB'."
    assert told in refused_train("--store-budget", "many")
    said = refused_train("--store", "nowhere")
    assert "Invalid value for '--store'" in said
    assert "'nowhere' is not one of" in said


def test_the_model_loads_without_frostline(train: Callable[..., Done], tmp_path: Path) -> None:
    assert train().status == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_folder_in_use_is_replaced_only_when_asked(
    train: Callable[..., Done], refused_train: Callable[..., str], tmp_path: Path
) -> None:
    assert train().status == 0
    old = (tmp_path / "out" / "model.safetensors").stat().st_ino
    assert "is in use.\nChoose another --out, or pass --overwrite." in refused_train()
    assert "is complete; there is nothing to resume" in refused_train("--resume")
    assert "is not UTF-8" not in refused_train("--overwrite", "--freeze", "nosuch")
    assert (tmp_path / "out" / "model.safetensors").stat().st_ino == old
    assert train("--overwrite").status == 0
    assert (tmp_path / "out" / "model.safetensors").stat().st_ino != old


def test_a_folder_of_others_is_never_replaced(
    train: Callable[..., Done], refused_train: Callable[..., str], table: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    for words in (["--resume"], []):
        assert "is in use" in refused_train(*words)
    assert "shows no earlier run, so --overwrite does not replace it" in refused_train("--overwrite")
    said = f"'{tmp_path}' holds the data of this run, '{table}'.\nChoose another --out."
    assert said in refused_train("--out", tmp_path, "--overwrite")
    (tmp_path / "out" / "mine.txt").rename(tmp_path / "mine.txt")
    assert train("--out", tmp_path / "out").status == 0
    assert "holds the model of this run" in refused_train("--model", tmp_path / "out", "--overwrite")
    (tmp_path / "mine.txt").rename(tmp_path / "out" / "mine.txt")
    assert "holds 'mine.txt', which no run left" in refused_train("--overwrite")


@pytest.mark.parametrize("out", ["here", "deep/down/here", "./here/", "../desk/here", "~/here"])
def test_ways_to_write_a_folder(
    train: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    work = tmp_path / "desk"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(work))
    assert train("--out", out).status == 0
    (model,) = work.rglob("model.safetensors")
    assert model.parent.name == "here"
    assert [path for path in tmp_path.rglob("*") if "partial" in path.name or path.name == "~"] == []


def test_another_run_in_the_same_folder(refused_train: Callable[..., str], tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    with folder.claim(resume=False, overwrite=False):
        for word in ((), ("--overwrite",), ("--resume",)):
            assert "Another run is writing to" in refused_train(*word)


def test_nothing_to_resume(refused_train: Callable[..., str]) -> None:
    assert "There is no interrupted run at" in refused_train("--resume")


# Data that cannot be used


@pytest.mark.parametrize(
    ("content", "phrases"),
    [
        (b"", ["is empty"]),
        (b"text,label\n", ["has a header ('text', 'label') but no rows"]),
        (b"review,stars\na,1\nb,2\n", ["has no column 'text'", "'review', 'stars'"]),
        (b"text,stars\na,1\nb,2\n", ["has no column 'label'", "'text', 'stars'"]),
        (b"text,label\na,x\nb,x\n", ["holds one class only, 'x'"]),
        (b"text,label\na,x\n ,y\n", ["is empty in row 2"]),
        (b"text,label\na,x\n,y\n", ["is empty in row 2"]),
        (b"text,label\na,x\nb,\n", ["is empty in row 2"]),
        (b"text,label\na\0b,x\nc,y\n", ["NUL"]),
        ("text,label\nGröße,x\nb,y\n".encode("latin-1"), ["is not UTF-8", "line 2"]),
        ("text,label\nGröße,x\nb,y\n".encode("utf-16"), ["UTF-"]),
        (b"text,label\na,x\nb,c,y\n", ["line 3 has 3 fields"]),
        (b'text,label\n"a,x\nb,y\n', ["double quote"]),
        (b"PK\x03\x04\x14\x00\x06\x00", []),
    ],
)
def test_a_table_that_cannot_be_used(
    refused_train: Callable[..., str], table: Path, content: bytes, phrases: list[str]
) -> None:
    table.write_bytes(content)
    text = refused_train()
    for phrase in phrases:
        assert phrase in text, text
    assert str(table) in text


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("nosuch.csv", "does not exist"),
        ("rows.cvs", "Did you mean"),
        ("rows.xlsx", "does not exist"),
        ("deep/nosuch.csv", "nor does its folder"),
    ],
)
def test_a_table_that_is_missing(refused_train: Callable[..., str], tmp_path: Path, name: str, phrase: str) -> None:
    assert phrase in refused_train("--data", tmp_path / name)


def test_labels_for_evaluation_that_training_never_saw(refused_train: Callable[..., str], tmp_path: Path) -> None:
    strange = tiny.write_csv(tmp_path / "eval.csv", [{"text": "a film", "label": "so so"}])
    text = refused_train("--eval", strange)
    assert "none of those of training: 'so so' (1 row)" in text
    assert "Those are 'bad', 'good'" in text


# Models that cannot be used


def damage(model: Path, what: str) -> None:
    file = model / "model.safetensors"
    if what == "cut":
        file.write_bytes(file.read_bytes()[:-99])
        return
    file.unlink()
    if what == "pickle":
        torch.save({"a": torch.zeros(1), "b": tiny.bert_config()}, model / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("what", "phrase"),
    [
        ("missing", "has a config.json but no weights"),
        ("cut", "are damaged"),
        ("pickle", "a pickle with more than tensors in it"),
    ],
)
def test_weights_that_cannot_be_used(
    refused_train: Callable[..., str], bert: Path, tmp_path: Path, what: str, phrase: str
) -> None:
    model = tiny.copy_of(bert, tmp_path / "model")
    damage(model, what)
    assert phrase in refused_train("--model", model)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("./nosuch", "There is no folder './nosuch'"),
        ("org/nosuch", "is not in the hub's cache, and the hub cannot be reached"),
        ("nosuch", "the hub cannot be reached"),
        ("~nosuchuser/model", "There is no folder"),
        (".", "holds no config.json"),
    ],
)
def test_a_model_that_is_missing(
    refused_train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, phrase: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert phrase in refused_train("--model", name)


# Words that cannot be used


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["--freeze", "layers[7]"], "layers[7]"),
        (["--freeze", "nosuch"], "nosuch"),
        (["--freeze", "head", "--train-only", "head"], "either freeze or train_only"),
        (["--freeze", "all"], "The plan 'freeze all' leaves nothing to train"),
        (["--nosuch"], "No such option: --nosuch"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--epochs", "many"], "'--epochs'"),
        (["--lr", "-1"], "--lr is -1"),
        (["--lr", "nan"], "--lr is nan"),
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", "1.5"], "'--seed'"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--limit", "0"], "--limit is 0"),
        (["--max-length", "65"], "the model takes 64 at most"),
        (["--patience", "2"], "--patience needs evaluation data"),
        (["--dtype", "fp16"], "needs a CUDA device"),
        (["--dtype", "fp8"], "'--dtype'"),
        (["--device", "cuda"], "torch finds no such device"),
        (["--problem-type", "nosuch"], "'--problem-type'"),
        (["--problem-type", "regression"], "where regression needs numbers"),
        (["--text-column", "a,b,c"], "3 text columns are named"),
        (["--label-column", "text"], "is named twice"),
    ],
)
def test_options_that_cannot_be_used(
    refused_train: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: list[str], phrase: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert phrase in refused_train(*words)


@pytest.mark.parametrize(
    ("out", "phrase"),
    [
        ("rows.csv", "is a file"),
        ("rows.csv/out", "cannot be written: Not a directory"),
        ("/", "cannot be an output folder"),
        ("~nosuchuser/out", "there is no such home folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_places_that_cannot_be_written(
    refused_train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, phrase: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert phrase in refused_train("--out", out)


# No room


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("words", ["number", "safetensors"])
def test_a_full_disk_at_the_first_checkpoint(
    refused_train: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    from safetensors import SafetensorError

    def in_words(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", no_room if words == "number" else in_words)
    text = refused_train("--json", "--epochs", 1)
    assert "There is no room left to write" in text
    assert "Make room, then run this again." in text


def test_a_full_disk_at_the_end_can_be_resumed(
    train: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("frostline.runs.train.write_card", no_room)
        done = train("--json")
    assert done.status == 2
    assert done.err.endswith("Make room, then go on with --resume.\n")
    assert not (tmp_path / "out").exists()
    assert train("--resume", "--json").status == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} >= LEFT - {"plan.json"}


def test_what_is_held_out_is_told(train: Callable[..., Done], table: Path, tmp_path: Path) -> None:
    assert "Nothing is held out, so nothing will say how good the model is on new texts: " in train().out
    done = train("--eval", "25%", "--overwrite")
    assert "Held out: 6 rows, stratified, drawn by the seed; held-out.json lists them." in done.out.splitlines()
    assert "Nothing is held out" not in done.out
    assert (tmp_path / "out" / "held-out.json").is_file()


def test_what_the_limit_takes_is_told(train: Callable[..., Done], table: Path) -> None:
    done = train("--eval", table, "--limit", 8)
    told = "Limit: 8 of 24 rows for training, 8 of 24 for evaluation; drawn by the seed, labels balanced."
    assert told in done.out.splitlines()
    assert "Limit: " not in train("--limit", 24, "--overwrite").out
