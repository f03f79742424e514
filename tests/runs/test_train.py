from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from frostline.errors import DataError, DivergedError, DriftError, ModelError
from frostline.plan.plan import Plan
from frostline.runs.inference import Classifier
from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings
from tests.thinning import slow
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from frostline.runs.train_result import TrainResult, TrainStart

FILES = {"README.md", "config.json", "metrics.json", "model.safetensors", "plan.json", "proof.json", "tokenizer.json"}


def run(model: Path, data: Path, out: Path, **changes: Any) -> TrainResult:
    values: dict[str, Any] = {"epochs": 1.0, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"}
    return run_training(TrainSettings(model=str(model), data=str(data), **values | changes), out)


def logits_of(folder: Path, texts: list[str]) -> torch.Tensor:
    """As anyone would compute them who has never heard of Frostline."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits: torch.Tensor = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
    return logits


def metrics_of(result: TrainResult) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((result.folder / "metrics.json").read_text(encoding="utf-8"))
    return values


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny.write_csv(folder / "rows.csv", tiny.rows(40))
    tiny.write_csv(folder / "easy.csv", tiny.easy_rows(40))
    return folder


@pytest.fixture(scope="module")
def learned(place: Path, quick_bert: Path) -> TrainResult:
    rows = place / "easy.csv"
    changes = {"epochs": 4.0, "learning_rate": 3e-3, "freeze": "embeddings"}
    return run(quick_bert, rows, place / "learned", eval_data=str(rows), **changes)


# What is left


def test_the_folder_is_complete_and_alone(learned: TrainResult, place: Path) -> None:
    assert {file.name for file in learned.folder.iterdir()} >= FILES
    assert {entry.name for entry in place.iterdir()} <= {"rows.csv", "easy.csv", "learned"}
    assert Plan.load(learned.folder) == Plan("embeddings")
    assert json.loads((learned.folder / "proof.json").read_text(encoding="utf-8"))["ok"] is True


def test_it_learns(learned: TrainResult) -> None:
    assert learned.metrics["accuracy"] > 0.9
    assert learned.steps == 20


def test_it_loads_without_frostline_and_says_the_same(learned: TrainResult) -> None:
    texts = ["a good film", "这部电影不好看", "ein übler Film"]
    plain = logits_of(learned.folder, texts)
    again = Classifier(str(learned.folder))
    with torch.no_grad():
        batch = again.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        assert torch.equal(again.model(**batch).logits, plain)
    assert again.model.config.id2label == {0: "bad", 1: "good"}
    assert again.model.config.label2id == {"bad": 0, "good": 1}


def test_the_saved_weights_are_those_of_the_proof(learned: TrainResult) -> None:
    from frostline.evidence.proof.fingerprint import fingerprint

    model = AutoModelForSequenceClassification.from_pretrained(learned.folder)
    assert fingerprint(model).digests == {tensor.name: tensor.after for tensor in learned.proof.tensors}
    assert "bert.embeddings.word_embeddings.weight" in {t.name for t in learned.proof.tensors if t.frozen}


def test_frozen_weights_are_those_of_the_checkpoint(learned: TrainResult, quick_bert: Path) -> None:
    held, base = tiny.weights(learned.folder), tiny.weights(quick_bert)
    for name, tensor in base.items():
        assert torch.equal(tensor, held[f"bert.{name}"]) == name.startswith("embeddings"), name


def test_the_model_kept_is_the_best_one(learned: TrainResult, place: Path) -> None:
    written = metrics_of(learned)
    evaluations = [entry for entry in written["history"] if "eval_loss" in entry]
    assert [entry["epoch"] for entry in evaluations] == [1.0, 2.0, 3.0, 4.0]
    best = max(evaluations, key=lambda entry: entry["eval_macro_f1"])  # the first of equals
    assert learned.best_epoch == written["best_epoch"] == best["epoch"]
    assert learned.metrics["macro_f1"] == best["eval_macro_f1"]
    from frostline.data.examples import read_examples

    measured = Classifier(str(learned.folder)).evaluate(read_examples(str(place / "easy.csv")))
    assert measured.keys() == learned.metrics.keys() == written["eval"].keys()
    for name, value in measured.items():
        assert value == pytest.approx(learned.metrics[name], abs=1e-6)


def test_an_earlier_epoch_is_kept_where_it_was_better(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    class Spoil(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.epoch and state.epoch >= 1:
                with torch.no_grad():
                    kwargs["model"].classifier.weight.zero_()
                    kwargs["model"].classifier.bias.copy_(torch.tensor([50.0, -50.0]))

    rows = str(place / "easy.csv")
    settings = TrainSettings(
        model=str(quick_bert), data=rows, eval_data=rows, epochs=3, batch_size=8, learning_rate=3e-3, seed=48
    )
    result = run_training(settings, tmp_path / "out", callbacks=[Spoil()])
    assert result.best_epoch == 1.0
    first = next(entry for entry in metrics_of(result)["history"] if "eval_accuracy" in entry)
    assert first["epoch"] == 1.0
    assert result.metrics["accuracy"] == first["eval_accuracy"]
    assert float(tiny.weights(result.folder)["classifier.bias"].abs().max()) < 10


def test_the_figures(learned: TrainResult) -> None:
    written = metrics_of(learned)
    assert written["rows"] == written["eval_rows"] == 40
    assert written["labels"] == ["bad", "good"]
    assert written["settings"]["freeze"] == "embeddings"
    assert written["problem_type"] == "single_label_classification"
    assert 0 < written["trainable_parameters"] < written["parameters"]
    assert written["steps"] == 20
    losses = [entry["loss"] for entry in written["history"] if "loss" in entry]
    assert min(losses) <= written["train_loss"] <= max(losses)


def test_patience(tmp_path: Path, place: Path, quick_bert: Path) -> None:
    rows = place / "rows.csv"
    stopped = run(quick_bert, rows, tmp_path / "a", eval_data=str(rows), learning_rate=1e-9, epochs=9.0, patience=2)
    assert stopped.steps == 3 * 5
    assert stopped.best_epoch == 1.0


def test_epochs_and_rate_that_are_left_out_are_chosen_and_told(tmp_path: Path, place: Path, bert: Path) -> None:
    for freeze, rate in (("embeddings, layers[0]", 1e-3), ("backbone", 1e-2)):
        changes = {"learning_rate": None, "epochs": None, "freeze": freeze}
        result = run(bert, place / "rows.csv", tmp_path / str(rate), limit=8, **changes)
        written = metrics_of(result)
        assert result.start.length.learning_rate == written["learning_rate"] == rate
        assert result.start.length.epochs == written["epochs"] == result.steps == 20
        assert written["settings"]["epochs"] is written["settings"]["learning_rate"] is None
        assert written["chosen"].endswith(" and 20 epochs for 8 rows")
        assert "20 steps at" in written["warning"]
        assert written["history"][-1]["epoch"] == 20
        assert "| epochs | 20 |" in (result.folder / "README.md").read_text(encoding="utf-8")


def test_the_baseline_is_measured_on_the_evaluation_rows(learned: TrainResult) -> None:
    written = metrics_of(learned)
    assert written["baseline"] == {
        "answer": "'bad'",
        "accuracy": 0.5,
        "macro_f1": pytest.approx(1 / 3),
        "loss": pytest.approx(math.log(2)),
    }
    assert written["shortfall"] == learned.shortfall == ""


def test_a_run_that_could_not_learn_says_what_to_thaw(tmp_path: Path, place: Path, bert: Path) -> None:
    rows = place / "rows.csv"
    result = run(bert, rows, tmp_path / "out", eval_data=str(rows), freeze="backbone", learning_rate=1e-9)
    first, second = result.shortfall.splitlines()
    assert first.startswith(f"Learned too little: the training loss ended at {result.train_loss:.4f}; ")
    assert first.endswith("the evaluation is no better than the baseline beyond the noise of so few rows.")
    thaw = 'Thaw the next unit: --freeze "embeddings, layers[:]".'
    assert second == f"First mend what the warning names. {thaw}"
    assert result.start.length.warning.startswith("5 steps at 1e-09 will hardly move new weights")
    assert metrics_of(result)["shortfall"] == result.shortfall
    alone = run(bert, rows, tmp_path / "alone", freeze="backbone", learning_rate=1e-9)
    assert alone.baseline is None
    assert alone.shortfall == f"{first.partition(', and ')[0]}.\n{second}"


def test_what_is_settled_is_told_before_the_first_step(tmp_path: Path, place: Path, bert: Path) -> None:
    told: list[TrainStart] = []

    class AtBegin(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            assert len(told) == 1

    settings = TrainSettings(model=str(bert), data=str(place / "rows.csv"), freeze="backbone", limit=12, epochs=1)
    result = run_training(settings, tmp_path / "out", on_start=told.append, callbacks=[AtBegin()])
    assert told == [result.start]
    assert result.start.rows == 12
    assert result.start.eval_rows is None
    assert result.start.resumed is None
    assert result.metrics == {}
    assert result.best_epoch is None
    assert {row.name for row in result.start.inspection.rows if row.trainable == "yes"} == {"head"}


def test_half_an_epoch(tmp_path: Path, place: Path, bert: Path) -> None:
    assert run(bert, place / "rows.csv", tmp_path / "out", epochs=0.5).steps == 3


@pytest.mark.parametrize("rows", [2, 9])
def test_a_last_batch_of_one_row(tmp_path: Path, bert: Path, rows: int) -> None:
    file = tiny.write_csv(tmp_path / "rows.csv", tiny.rows(rows))
    one = tiny.write_csv(tmp_path / "one.csv", tiny.rows(1))
    result = run(bert, file, tmp_path / "out", batch_size=rows - 1, eval_data=str(one))
    assert result.steps == 2
    assert result.start.eval_rows == 1
    assert result.metrics["accuracy"] in {0.0, 1.0}


def test_long_texts_are_cut_at_what_the_model_takes(tmp_path: Path, bert: Path) -> None:
    table = [{"text": row["text"] + " sehr" * 250, "label": row["label"]} for row in tiny.rows(8)]
    result = run(bert, tiny.write_csv(tmp_path / "rows.csv", table), tmp_path / "out")
    assert result.start.tokens.longest == 64
    assert result.start.tokens.truncated == 8


def test_max_length_is_kept_with_the_tokenizer(tmp_path: Path, place: Path, bert: Path) -> None:
    result = run(bert, place / "rows.csv", tmp_path / "out", max_length=6)
    assert result.start.tokens.longest == 6
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    assert len(tokenizer("good " * 40, truncation=True)["input_ids"]) == 6
    with pytest.raises(DataError, match="takes 64 at most"):
        run(bert, place / "rows.csv", tmp_path / "other", max_length=65)


# Kinds of labels and files


@pytest.mark.parametrize("kind", ["csv", "parquet", *slow("tsv", "jsonl")])
def test_files_of_each_kind_give_the_same_model(tmp_path: Path, place: Path, bert: Path, kind: str) -> None:
    file = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        tiny.write_parquet(file, tiny.rows(40))
    elif kind == "jsonl":
        tiny.write_jsonl(file, tiny.rows(40))
    else:
        tiny.write_csv(file, tiny.rows(40), "\t" if kind == "tsv" else ",")
    result = run(bert, file, tmp_path / "out", seed=5)
    reference = run(bert, place / "rows.csv", tmp_path / "reference", seed=5)
    assert tiny.same_weights(result.folder, reference.folder)


def test_numbers_as_labels(tmp_path: Path, bert: Path) -> None:
    table = [{"text": row["text"], "label": [10, 9, -1][i % 3]} for i, row in enumerate(tiny.rows(12))]
    result = run(bert, tiny.write_jsonl(tmp_path / "rows.jsonl", table), tmp_path / "out")
    assert Classifier(str(result.folder)).model.config.id2label == {0: "-1", 1: "9", 2: "10"}


def test_pairs_of_texts(tmp_path: Path, bert: Path) -> None:
    table = [{"a": row["text"], "b": tiny.LINES[i % 7], "same": i % 2} for i, row in enumerate(tiny.rows(12))]
    file = tiny.write_csv(tmp_path / "rows.csv", table)
    result = run(bert, file, tmp_path / "out", text_columns=("a", "b"), label_columns=("same",), eval_data=str(file))
    pair = Classifier(str(result.folder)).tokenizer(table[0]["a"], table[0]["b"])["input_ids"]
    assert pair.count(3) == 2  # both texts, each closed by a separator
    assert result.start.tokens.longest > max(len(str(row["a"]).split()) for row in table)
    assert "accuracy" in result.metrics


TAGS = [["loud"], [], ["loud", "long"], ["long"]]


@pytest.mark.parametrize("form", ["columns", "joined", "lists"])
def test_several_labels_per_row(tmp_path: Path, bert: Path, form: str) -> None:
    changes: dict[str, Any] = {}
    table: list[dict[str, Any]] = [{"text": row["text"]} for row in tiny.rows(16)]
    for index, row in enumerate(table):
        tags = TAGS[index % 4]
        if form == "columns":
            row |= {name: int(name in tags) for name in ("long", "loud")}
        else:
            row["label"] = tags if form == "lists" else "|".join(tags)
    if form == "columns":
        changes["label_columns"] = ("long", "loud")
    if form == "joined":
        changes["problem_type"] = "multi_label_classification"
    file = tmp_path / ("rows.jsonl" if form == "lists" else "rows.csv")
    (tiny.write_jsonl if form == "lists" else tiny.write_csv)(file, table)
    result = run(bert, file, tmp_path / "out", eval_data=str(file), **changes)
    config = Classifier(str(result.folder)).model.config
    assert config.problem_type == "multi_label_classification"
    assert config.id2label == {0: "long", 1: "loud"}
    assert result.metrics.keys() == {"accuracy", "micro_f1", "macro_f1", "loss"}


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression(tmp_path: Path, bert: Path, outputs: int) -> None:
    names = ("score", "length")[:outputs]
    table = [
        {"text": row["text"]} | {name: i * 0.25 + place for place, name in enumerate(names)}
        for i, row in enumerate(tiny.rows(12))
    ]
    file = tiny.write_csv(tmp_path / "rows.csv", table)
    result = run(bert, file, tmp_path / "out", eval_data=str(file), label_columns=names, learning_rate=1e-3)
    config = Classifier(str(result.folder)).model.config
    assert config.problem_type == "regression"
    assert config.num_labels == outputs
    assert result.metrics.keys() == {"rmse", "mae", "pearson", "loss"}
    if outputs == 1:
        assert result.metrics["rmse"] ** 2 == pytest.approx(result.metrics["loss"], rel=1e-4)


def test_a_run_that_diverges_says_so_and_leaves_valid_json(tmp_path: Path, bert: Path) -> None:
    table = [{"text": row["text"], "label": i * 0.25} for i, row in enumerate(tiny.rows(12))]
    file = tiny.write_csv(tmp_path / "rows.csv", table)
    with pytest.raises(DivergedError, match=r"parameters are not finite[^\n]*\n.*lower --lr") as caught:
        run(bert, file, tmp_path / "out", eval_data=str(file), learning_rate=1e30)
    assert caught.value.exit_status == 1

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_a_decoder_without_a_padding_token(tmp_path: Path, place: Path, gpt2: Path) -> None:
    rows = place / "rows.csv"
    result = run(gpt2, rows, tmp_path / "out", eval_data=str(rows), freeze="embeddings, layers[0]", batch_size=8)
    assert result.proof.ok
    alone = logits_of(result.folder, ["a bad film"])
    padded = logits_of(result.folder, ["a bad film", "a good film and a very long one"])
    assert torch.allclose(alone[0], padded[0], atol=1e-6)


# Drift


def test_a_drift_is_raised_when_the_model_is_saved(tmp_path: Path, place: Path, bert: Path) -> None:
    name = "bert.embeddings.word_embeddings.weight"

    class Meddle(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with torch.no_grad():
                kwargs["model"].get_parameter(name)[7, 3] += 1e-3

    rows = str(place / "rows.csv")
    settings = TrainSettings(model=str(bert), data=rows, freeze="embeddings", epochs=1, device="cpu")
    with pytest.raises(DriftError, match=name) as caught:
        run_training(settings, tmp_path / "out", callbacks=[Meddle()])
    assert caught.value.proof.drifted == (name,)
    assert {file.name for file in (tmp_path / "out").iterdir()} >= FILES
    assert json.loads((tmp_path / "out" / "proof.json").read_text(encoding="utf-8"))["ok"] is False
    assert "Drift" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


# What cannot be used leaves nothing behind


def test_labels_that_training_never_saw(tmp_path: Path, place: Path, bert: Path) -> None:
    strange = tiny.write_csv(tmp_path / "eval.csv", [{"text": "a film", "label": "so so"}])
    with pytest.raises(DataError, match="none of those of training: 'so so'"):
        run(bert, place / "rows.csv", tmp_path / "out", eval_data=str(strange))
    assert [entry.name for entry in tmp_path.iterdir()] == ["eval.csv"]


def test_a_tokenizer_of_another_model(tmp_path: Path, place: Path, bert: Path) -> None:
    folder = tiny.save_base(tmp_path / "model", tiny.bert_config(vocab_size=20))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((bert / name).read_bytes())
    with pytest.raises(ModelError, match=r"gives the token id \d+, but the model has 20 embeddings"):
        run(folder, place / "rows.csv", tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_backbone_that_does_not_fit_its_configuration(tmp_path: Path, place: Path, bert: Path) -> None:
    folder = tiny.copy_of(bert, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"do not fit: 6 tensors .* bert\.encoder\.layer\.0\.intermediate"):
        run(folder, place / "rows.csv", tmp_path / "out")


def test_a_head_for_other_labels_is_made_anew(tmp_path: Path, place: Path, learned: TrainResult) -> None:
    rows = [{"text": row["text"], "label": f"label {i % 3}"} for i, row in enumerate(tiny.rows(12))]
    result = run(learned.folder, tiny.write_csv(tmp_path / "rows.csv", rows), tmp_path / "out")
    assert result.start.inspection.origin.mismatched == {"classifier.weight", "classifier.bias"}
    assert {row.name: row.origin for row in result.start.inspection.rows}["head"] == "new"
