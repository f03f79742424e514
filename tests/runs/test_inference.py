from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from frostline.data.labels import MULTI, REGRESSION, SINGLE, LabelSchema
from frostline.errors import DataError, ModelError
from frostline.evidence.proof.run_result import METRICS_FILE
from frostline.runs.inference import Classifier, Predictions, examples_of
from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["good good film", "这部电影不好看", "ein übler Film, schade", "bad " * 90]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, quick_bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    file = tiny.write_csv(folder / "rows.csv", tiny.easy_rows(24))
    settings = TrainSettings(model=str(quick_bert), data=str(file), epochs=1, batch_size=8, learning_rate=3e-3)
    return run_training(settings, folder / "model").folder


def test_probabilities_are_those_of_the_model(trained: Path) -> None:
    classifier = Classifier(str(trained))
    predictions = classifier.predict(examples_of(TEXTS))
    batch = classifier.tokenizer(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        expected = classifier.model(**batch).logits.softmax(dim=-1)
    assert predictions.probabilities == pytest.approx(expected.numpy(), abs=1e-6)
    assert predictions.probabilities.sum(axis=1) == pytest.approx(np.ones(4))
    assert predictions.labels == [predictions.names[int(row.argmax())] for row in expected]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_order_of_rows_is_kept_whatever_the_batch(trained: Path, batch_size: int) -> None:
    texts = [text for text in TEXTS for _ in range(2)]
    whole = Classifier(str(trained)).predict(examples_of(texts)).probabilities
    parts = Classifier(str(trained), batch_size=batch_size).predict(examples_of(texts)).probabilities
    assert parts == pytest.approx(whole, abs=1e-6)
    assert whole[0] == pytest.approx(whole[1], abs=1e-6)


def test_many_rows_run_padding_free(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from frostline.engine.engine import Engine

    made: list[Engine] = []
    own = Engine.__init__

    def noting(engine: Engine, *arguments: Any) -> None:
        own(engine, *arguments)
        made.append(engine)

    monkeypatch.setattr(Engine, "__init__", noting)
    texts = [f"{text} {index}" for index in range(40) for text in TEXTS]
    many = Classifier(str(trained)).predict(examples_of(texts)).probabilities
    (engine,) = made
    assert engine.checked is not None
    assert engine.checked.paths.packing is not None
    assert engine.answered > 0
    few = [Classifier(str(trained)).predict(examples_of(texts[at : at + 80])).probabilities for at in (0, 80)]
    assert len(made) == 1
    assert many == pytest.approx(np.concatenate(few), abs=1e-5)


def test_dropout_is_off(trained: Path) -> None:
    classifier = Classifier(str(trained))
    classifier.model.train()
    first, second = (classifier.predict(examples_of(TEXTS)).probabilities for _ in range(2))
    assert np.array_equal(first, second)


def test_max_length(trained: Path) -> None:
    short = Classifier(str(trained), max_length=4).predict(examples_of(["good film bad bad bad", "good film"]))
    assert short.probabilities[0] == pytest.approx(short.probabilities[1], abs=1e-6)
    with pytest.raises(DataError, match="takes 64 at most"):
        Classifier(str(trained), max_length=65).predict(examples_of(TEXTS))


def test_a_model_that_was_never_trained(bert: Path) -> None:
    with pytest.raises(ModelError, match=r"is no trained classifier: its checkpoint lacks classifier.bias"):
        Classifier(str(bert))


@pytest.mark.parametrize(
    ("texts", "pairs", "phrase"),
    [
        (["good", " "], None, "Text 2 is empty"),
        ([""], None, "The text is empty"),
        (["good", "bad"], ["good"], "2 texts, but 1 second text"),
        (["good", "a\0b"], None, "NUL character in row 2"),
        (["good", "\udcff"], None, "not valid Unicode"),
        (["good"], [""], "The second text is empty"),
    ],
)
def test_texts_that_cannot_be_used(texts: list[str], pairs: list[str] | None, phrase: str) -> None:
    with pytest.raises(DataError, match=phrase) as caught:
        examples_of(texts, pairs)
    assert len(str(caught.value).splitlines()) <= 2
    str(caught.value).encode()


def test_pairs_for_a_model_of_single_texts(trained: Path) -> None:
    with pytest.raises(DataError, match="was trained on single texts; given were pairs"):
        Classifier(str(trained)).predict(examples_of(["good"], ["bad"]))


def test_pairs(trained: Path, tmp_path: Path) -> None:
    trained = tiny.copy_of(trained, tmp_path / "model")
    (trained / METRICS_FILE).unlink()  # of such a model nobody knows what it was trained on
    classifier = Classifier(str(trained))
    together = classifier.predict(examples_of(["good"], ["bad"])).probabilities
    assert together != pytest.approx(classifier.predict(examples_of(["good"])).probabilities, abs=1e-9)


# What the outputs mean


def rows(schema: LabelSchema, values: list[list[float]]) -> list[dict[str, Any]]:
    return Predictions(schema, np.array(values)).rows()


def test_of_one_label_the_likeliest_is_said() -> None:
    assert rows(LabelSchema(SINGLE, ("no", "yes")), [[0.25, 0.75]]) == [
        {"prediction": "yes", "probability_no": 0.25, "probability_yes": 0.75}
    ]


def test_of_several_those_from_one_half_on() -> None:
    found = rows(LabelSchema(MULTI, ("a", "b")), [[0.5, 0.75], [0.1, 0.49], [0.2, 0.9]])
    assert [row["prediction"] for row in found] == ["a|b", "", "b"]


def test_of_a_regression_the_values() -> None:
    assert rows(LabelSchema(REGRESSION, ()), [[1.5]]) == [{"prediction": "1.5", "value_value": 1.5}]
    assert rows(LabelSchema(REGRESSION, ("x", "y")), [[1.5, -2.0]]) == [
        {"prediction": "1.5|-2", "value_x": 1.5, "value_y": -2.0}
    ]
