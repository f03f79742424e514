from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from frostline.data.labels import MULTI, LabelSchema
from frostline.runs.inference import Classifier, Predictions
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def train(frostline: Callable[..., Done], model: Path, data: Path, out: Path, *words: Any) -> None:
    done = frostline("train", "--model", model, "--data", data, "--out", out, "--epochs", 1, "--lr", 0.01, *words)
    assert done.status == 0, done.err


def test_texts(frostline: Callable[..., Done], trained: Path) -> None:
    done = frostline("predict", trained, "good good good film", "bad bad\nbad film")
    assert done.status == 0
    lines = [line.split("  ") for line in done.out.splitlines()]
    assert [line[0] for line in lines] == ["good", "bad"]
    assert all(0.5 < float(line[1]) <= 1 for line in lines)
    assert [line[2] for line in lines] == ["good good good film", "bad bad bad film"]
    assert done.err == ""


def test_json(frostline: Callable[..., Done], trained: Path) -> None:
    rows = json.loads(frostline("predict", trained, "good film", "这部电影", "--json").out)
    assert [row["text"] for row in rows] == ["good film", "这部电影"]
    for row in rows:
        assert row.keys() == {"text", "prediction", "probability_bad", "probability_good"}
        assert row["probability_bad"] + row["probability_good"] == pytest.approx(1.0)
        assert row["prediction"] == max(("bad", "good"), key=lambda name: row[f"probability_{name}"])


def test_json_to_a_file(frostline: Callable[..., Done], trained: Path, tmp_path: Path) -> None:
    done = frostline("predict", trained, "good film", "--json", "--out", tmp_path / "out.json")
    assert (done.status, done.out) == (0, "")
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == frostline(
        "predict", trained, "good film", "--json"
    ).out


def test_a_table_to_a_csv_file(frostline: Callable[..., Done], trained: Path, tmp_path: Path) -> None:
    texts = ["good, film", 'he said "bad"', "two\nlines", "Straße 🎉"]
    data = tiny.write_csv(tmp_path / "in.csv", [{"id": i, "review": text} for i, text in enumerate(texts)])
    out = tmp_path / "deep" / "out.csv"
    done = frostline("predict", trained, "--data", data, "--text-column", "review", "--out", out)
    assert done.status == 0
    assert done.out == f"4 predictions are in {out}.\n"
    rows = read(out)
    assert [row["review"] for row in rows] == texts
    assert list(rows[0]) == ["review", "prediction", "probability_bad", "probability_good"]
    for row in rows:
        assert float(row["probability_bad"]) + float(row["probability_good"]) == pytest.approx(1.0)
    same = json.loads(frostline("predict", trained, "--data", data, "--text-column", "review", "--json").out)
    assert [float(row["probability_bad"]) for row in rows] == [row["probability_bad"] for row in same]
    assert [path.name for path in out.parent.iterdir()] == ["out.csv"]


def test_what_is_no_file_is_written_into_and_stays(
    frostline: Callable[..., Done], refused: Callable[..., str], trained: Path, tmp_path: Path
) -> None:
    read_from = tmp_path / "file.csv"
    (tmp_path / "link").symlink_to(read_from)
    assert frostline("predict", trained, "good", "--out", tmp_path / "link").out.startswith("1 predictions are in ")
    assert (tmp_path / "link").is_symlink()
    assert [row["text"] for row in read(read_from)] == ["good"]
    (tmp_path / "null").symlink_to("/dev/null")
    done = frostline("predict", trained, "good", "--out", tmp_path / "null")
    assert (done.status, done.out) == (0, "")
    assert (tmp_path / "null").is_symlink()
    assert "no room left to write '/dev/full'" in refused("predict", trained, "good", "--out", "/dev/full")
    assert Path("/dev/full").is_char_device()


def test_labels_in_the_table_are_not_looked_at(frostline: Callable[..., Done], trained: Path, tmp_path: Path) -> None:
    data = tiny.write_csv(tmp_path / "in.csv", [{"text": "good", "label": "never seen"}, {"text": "bad", "label": ""}])
    assert len(json.loads(frostline("predict", trained, "--data", data, "--json", "--limit", 1).out)) == 1


def test_pairs(frostline: Callable[..., Done], bert: Path, tmp_path: Path) -> None:
    table = [{"a": row["text"], "b": tiny.LINES[i % 5], "label": i % 2} for i, row in enumerate(tiny.rows(8))]
    data = tiny.write_csv(tmp_path / "in.csv", table)
    train(frostline, bert, data, tmp_path / "model", "--text-column", "a,b")
    done = frostline("predict", tmp_path / "model", "--data", data, "--text-column", " a , b", "--json")
    rows = json.loads(done.out)
    assert [(row["a"], row["b"]) for row in rows] == [(row["a"], row["b"]) for row in table]
    assert list(rows[0]) == ["a", "b", "prediction", "probability_0", "probability_1"]
    lines = frostline("predict", tmp_path / "model", "--data", data, "--text-column", "a,b").out.splitlines()
    assert [line.split("  ")[2:] for line in lines] == [[row["a"], row["b"]] for row in table]
    words = [word for row in table for word in (row["a"], "--pair", row["b"])]
    assert frostline("predict", tmp_path / "model", *words).out.splitlines() == lines


def test_a_model_of_pairs_takes_no_single_texts(
    frostline: Callable[..., Done], refused: Callable[..., str], bert: Path, tmp_path: Path
) -> None:
    table = [{"a": row["text"], "b": "film", "label": i % 2} for i, row in enumerate(tiny.rows(8))]
    data = tiny.write_csv(tmp_path / "in.csv", table)
    train(frostline, bert, data, tmp_path / "model", "--text-column", "a,b")
    for words in (["good"], ["--data", data, "--text-column", "a"]):
        text = refused("predict", tmp_path / "model", *words)
        assert "was trained on pairs of texts (a, b); given were single texts" in text
        assert "--pair TEXT on the command line, --text-column a,b for a table" in text
    assert "given were single" in refused("evaluate", tmp_path / "model", "--data", data, "--text-column", "a")


def test_regression(frostline: Callable[..., Done], bert: Path, tmp_path: Path) -> None:
    data = tiny.write_csv(tmp_path / "in.csv", [row | {"label": i / 4} for i, row in enumerate(tiny.rows(8))])
    train(frostline, bert, data, tmp_path / "model")
    rows = json.loads(frostline("predict", tmp_path / "model", "good", "bad", "--json").out)
    assert list(rows[0]) == ["text", "prediction", "value_value"]
    assert float(rows[0]["prediction"]) == pytest.approx(rows[0]["value_value"], rel=1e-4)
    lines = frostline("predict", tmp_path / "model", "good").out.splitlines()
    assert lines == [f"{rows[0]['prediction']}  good"]


def test_several_labels(frostline: Callable[..., Done], bert: Path, tmp_path: Path) -> None:
    table = [{"text": row["text"], "loud": i % 2, "long": i // 2 % 2} for i, row in enumerate(tiny.rows(8))]
    data = tiny.write_csv(tmp_path / "in.csv", table)
    train(frostline, bert, data, tmp_path / "model", "--label-column", "loud,long")
    out = tmp_path / "out.csv"
    assert frostline("predict", tmp_path / "model", "--data", data, "--out", out).status == 0
    for row in read(out):
        given = [name for name in ("loud", "long") if float(row[f"probability_{name}"]) >= 0.5]
        assert row["prediction"] == "|".join(given)


@pytest.mark.parametrize(
    ("shares", "line"),
    [([0.25, 0.375], "(none)  long 0.3750  good film"), ([0.75, 0.5], "loud|long  0.7500  good film")],
)
def test_of_no_label_the_nearest_is_shown(
    frostline: Callable[..., Done],
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    shares: list[float],
    line: str,
) -> None:
    made = Predictions(LabelSchema(MULTI, ("loud", "long")), np.array([shares]))
    monkeypatch.setattr(Classifier, "predict", lambda *_: made)
    assert frostline("predict", trained, "good film").out == f"{line}\n"


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        ([], "Give texts to predict, or a table of them with --data"),
        (["text", "--data", "x.csv"], "one of the two"),
        ([""], "The text is empty ('').\nGive texts with words in them."),
        (["good", "  "], "Text 2 is empty ('  ')"),
        (["good", "--pair", ""], "The second text is empty ('')"),
        (["good", "bad", "--pair", "good"], "There are 2 texts, but 1 second text."),
        (["good", "--pair", "bad"], "was trained on single texts; given were pairs"),
        (["--data", "x.csv", "--pair", "bad"], "name both columns: --text-column A,B"),
        (["good", "\udcff"], "not valid Unicode"),
        (["--data", "nosuch.csv"], "does not exist"),
        (["good", "--max-length", "65"], "takes 64 at most"),
        (["good", "--max-length", "-1"], "must be 3 or more"),
        (["good", "--batch-size", "0"], "'--batch-size'"),
        (["good", "--batch-size", str(10**20)], f"--batch-size is {10**20}; it must be at least 1, and at most"),
        (["good", "--device", "cuda"], "device is 'cuda'"),
        (["good", "--device", "tpu"], "'--device'"),
    ],
)
def test_what_cannot_be_used(
    refused: Callable[..., str],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    phrase: str,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert phrase in refused("predict", trained, *words)


def test_a_table_is_not_written_over(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    table = tiny.write_csv(tmp_path / "own.csv", tiny.rows(4))
    before = table.read_bytes()
    error = refused("predict", str(trained), "--data", str(table), "--out", str(table))
    assert "own.csv' is the table that is read." in error
    assert table.read_bytes() == before


def test_a_table_without_the_column(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    data = tiny.write_csv(tmp_path / "in.csv", [{"review": "good", "stars": 3}])
    text = refused("predict", trained, "--data", data, "--out", tmp_path / "out.csv")
    assert "has no column 'text'" in text
    assert "'review', 'stars'" in text


def test_a_column_that_is_called_as_a_result_is(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    for name in ("prediction", "probability_good"):
        data = tiny.write_csv(tmp_path / "in.csv", [{name: "good"}])
        text = refused("predict", trained, "--data", data, "--text-column", name, "--json")
        assert f"The text column '{name}' has the name of a result" in text


@pytest.mark.parametrize("out", ["in.csv/out.csv", "in.csv/deep/out.csv", ".", "~nosuchuser/out.csv"])
def test_places_that_cannot_be_written(
    refused: Callable[..., str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tiny.write_csv(tmp_path / "in.csv", [{"text": "good"}])
    assert out in refused("predict", trained, "--data", data, "--out", out)


def test_a_model_without_a_trained_head(refused: Callable[..., str], bert: Path) -> None:
    assert "is no trained classifier" in refused("predict", bert, "good")


def test_a_delta(
    frostline: Callable[..., Done], refused: Callable[..., str], trained: Path, quick_bert: Path, tmp_path: Path
) -> None:
    base = tiny.copy_of(quick_bert, tmp_path / "base")
    assert frostline("delta", "save", base, trained, tmp_path / "small").status == 0
    done = frostline("predict", tmp_path / "small", "good film", "bad film")
    assert (done.status, done.out) == (0, frostline("predict", trained, "good film", "bad film").out)
    data = trained.parent / "easy.csv"
    done = frostline("evaluate", tmp_path / "small", "--data", data)
    assert (done.status, done.out) == (0, frostline("evaluate", trained, "--data", data).out)
    assert "is a delta of a run.\nRebuild the run first" in refused("verify", tmp_path / "small")
    base.rename(tmp_path / "gone")
    said = f"There is no folder '{base}'.\nName the base of the delta with --base (base=) of 'frostline delta load'."
    assert said in refused("predict", tmp_path / "small", "good film")


# Evaluation


def test_evaluation_agrees_with_the_run(frostline: Callable[..., Done], trained: Path) -> None:
    written = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["eval"]
    data = trained.parent / "easy.csv"
    found = json.loads(frostline("evaluate", trained, "--data", data, "--json").out)
    assert found["rows"] == 24
    assert found["metrics"].keys() == written.keys()
    for name, value in written.items():
        assert found["metrics"][name] == pytest.approx(value, abs=1e-6)
    line = frostline("evaluate", trained, "--data", data, "--batch-size", 5).out
    assert line.startswith("24 rows: accuracy ")
    assert line.endswith(f"loss {written['loss']:.4f}\n")


def test_evaluation_of_labels_that_are_wrong(frostline: Callable[..., Done], trained: Path, tmp_path: Path) -> None:
    other = {"good": "bad", "bad": "good"}
    data = tiny.write_csv(tmp_path / "in.csv", [row | {"label": other[row["label"]]} for row in tiny.easy_rows(24)])
    right = json.loads(frostline("evaluate", trained, "--data", trained.parent / "easy.csv", "--json").out)
    wrong = json.loads(frostline("evaluate", trained, "--data", data, "--json").out)
    assert wrong["metrics"]["accuracy"] == pytest.approx(1 - right["metrics"]["accuracy"])


def test_evaluation_of_labels_that_are_unknown(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    data = tiny.write_csv(tmp_path / "in.csv", [{"text": "good", "label": "goood"}, {"text": "bad", "label": "bad"}])
    text = refused("evaluate", trained, "--data", data)
    assert "none of those of training: 'goood'" in text
    assert "Did you mean 'good'?" in text


def test_evaluation_needs_labels(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    data = tiny.write_csv(tmp_path / "in.csv", [{"text": "good"}])
    assert "has no column 'label'" in refused("evaluate", trained, "--data", data)
    assert "--data" in refused("evaluate", trained)


def test_a_part_is_balanced_and_drawn_by_the_seed(
    frostline: Callable[..., Done], trained: Path, tmp_path: Path
) -> None:
    rows = [{"text": f"{label} " * 4 + "film", "label": label} for label in ["good"] * 30 + ["bad"] * 5]
    data = tiny.write_csv(tmp_path / "rows.csv", rows)
    words = ("evaluate", trained, "--data", data, "--limit", 10)
    found = json.loads(frostline(*words, "--json").out)
    assert found["rows"] == 10
    assert found["metrics"]["accuracy"] == 1.0
    assert frostline(*words).out.startswith("10 of 35 rows: accuracy 1.0000, macro F1 1.0000, ")  # both classes
    assert "--seed" in frostline(*words, "--seed", -1).err
    assert "limit of rows is 0" in frostline("evaluate", trained, "--data", data, "--limit", 0).err
