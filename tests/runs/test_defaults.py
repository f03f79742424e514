from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from transformers import AlbertConfig, AlbertForSequenceClassification, AutoModelForSequenceClassification

from frostline.anatomy.origin import Origin
from frostline.freezing.freeze import freeze, train_only
from frostline.plan.phase import Phase
from frostline.plan.rates import HEAD_RATE, LAYERS_RATE, MEASURED_WIDTH, MOST_RATE
from frostline.plan.schedule import Schedule
from frostline.runs.defaults import STEPS, TrainingLength, with_usual_rates
from frostline.runs.train_settings import TrainSettings
from tests.training import tiny

if TYPE_CHECKING:
    from torch import nn

NEW = Origin("base", new=frozenset({"classifier.weight", "classifier.bias"}))
TRAINED = Origin("base")


def bert(**changes: Any) -> Any:
    config = tiny.bert_config(num_hidden_layers=6, **changes)
    return AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]


def length(model: nn.Module, rows: int = 300, origin: Origin = NEW, **given: Any) -> TrainingLength:
    return TrainingLength.of(model, origin, TrainSettings(model="model", data="rows.csv", **given), rows)


# The rate follows what trains


@pytest.mark.parametrize(
    ("frozen", "rate", "words"),
    [
        ("backbone", HEAD_RATE, "the head alone"),
        ("embeddings, layers[:]", MOST_RATE, "no layer"),
        ("embeddings, layers[:5]", MOST_RATE, "1 layer"),
        ("embeddings, layers[:2]", LAYERS_RATE / 4, "4 layers"),
        ("embeddings", LAYERS_RATE / 6, "6 layers"),
        ("all, ~head, ~norms", MOST_RATE, "small parts of layers"),
    ],
)
def test_the_rate(frozen: str, rate: float, words: str) -> None:
    model = bert()
    freeze(model, frozen)
    found = length(model)
    assert found.learning_rate == float(f"{rate:.1g}")
    assert found.chosen == f"learning rate {found.learning_rate:g} for {words} and {found.epochs:g} epochs for 300 rows"


def test_nothing_frozen_is_all_layers() -> None:
    assert length(bert()).learning_rate == float(f"{LAYERS_RATE / 6:.1g}")


def test_a_wider_model_takes_a_lower_rate() -> None:
    model = bert(hidden_size=2 * MEASURED_WIDTH, intermediate_size=8)
    freeze(model, "backbone")
    assert length(model).learning_rate == HEAD_RATE / 2


def test_a_layer_that_runs_several_times_counts_as_often() -> None:
    config = AlbertConfig(
        vocab_size=50, embedding_size=8, hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=12
    )
    model = AlbertForSequenceClassification(config)
    assert length(model).learning_rate == float(f"{LAYERS_RATE / 12:.1g}")


# Epochs follow the steps


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs"), [(20, 16, 20), (300, 16, 16), (1000, 16, 5), (9000, 16, 3), (9000, 128, 5)]
)
def test_the_epochs(rows: int, batch_size: int, epochs: int) -> None:
    found = length(bert(), rows, batch_size=batch_size)
    per_epoch = -(-rows // batch_size)
    assert found.epochs == epochs
    assert found.steps == epochs * per_epoch
    assert found.steps >= STEPS or epochs == 20


def test_what_is_given_wins() -> None:
    found = length(bert(), epochs=2.5, learning_rate=1e-4)
    assert (found.epochs, found.learning_rate, found.steps, found.chosen) == (2.5, 1e-4, 48, "")
    assert length(bert(), epochs=2).chosen == "learning rate 0.0003 for 6 layers"
    assert length(bert(), learning_rate=1e-4).chosen == "16 epochs for 300 rows"


# What is too little for a new head


@pytest.mark.parametrize(
    "given",
    [{"epochs": 1}, {"learning_rate": 1e-6}, {"epochs": 3, "learning_rate": 5e-5}, {"epochs": 1, "learning_rate": 1}],
)
def test_too_little_is_said(given: dict[str, Any]) -> None:
    said = length(bert(), **given).warning
    assert said.endswith("rather --epochs 16 --lr 0.0003.")
    assert length(bert(), origin=TRAINED, **given).warning == ""


@pytest.mark.parametrize("given", [{}, {"epochs": 4}, {"learning_rate": 5e-5}, {"epochs": 8, "learning_rate": 1e-4}])
def test_enough_is_enough(given: dict[str, Any]) -> None:
    assert length(bert(), **given).warning == ""


def test_a_new_head_that_is_frozen_needs_nothing() -> None:
    model = bert()
    train_only(model, "layers[5]")
    assert length(model, epochs=1, learning_rate=1e-7).warning == ""


def test_a_model_without_a_configuration() -> None:
    model = bert()
    del model.config
    assert length(model).learning_rate == float(f"{LAYERS_RATE / 6:.1g}")


# Phases


def test_each_phase_without_a_rate_has_the_usual_one() -> None:
    phases = (
        Phase("head", until="1 epoch"),
        Phase("layers[-2:], head", until="25%", lr="0.5x"),
        Phase("all", layer_decay=0.5),
    )
    rates = [phase.lr for phase in with_usual_rates(bert(), Schedule(phases)).phases]
    # Under the decay the top layer has half the head's rate, and all layers together less than it.
    assert rates == [HEAD_RATE, "0.5x", MOST_RATE]
    drawn = with_usual_rates(bert(), Schedule((Phase("all", layers="2 random every 5 steps"),))).phases[0].lr
    assert drawn == float(f"{LAYERS_RATE / 2:.1g}")


@pytest.mark.parametrize(
    ("until", "epochs", "steps"),
    [
        (("1 epoch", "2 epochs"), 3.0, 57),
        (("1 epoch", "10 steps"), 29 / 19, 29),
        (("2 epochs", None), 18.0, 342),
        (("50%", None), 16.0, 304),
        (("plateau of eval_loss", None), 16.0, 304),
    ],
)
def test_epochs_are_enough_for_all_phases(until: tuple[str, str | None], epochs: float, steps: int) -> None:
    schedule = Schedule((Phase("head", until=until[0]), Phase("all", until=until[1])))
    settings = TrainSettings(model="model", data="rows.csv")
    found = TrainingLength.of(bert(), NEW, settings, 300, schedule)
    assert found.epochs == pytest.approx(epochs)
    assert found.steps == steps
    assert found.learning_rate == HEAD_RATE
