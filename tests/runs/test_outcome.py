from __future__ import annotations

import math
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from frostline.freezing.freeze import freeze
from frostline.runs.baseline import Baseline
from frostline.runs.outcome import last_loss, next_to_thaw, shortfall
from tests.training import tiny

SAME = Baseline("'a'", {"accuracy": 0.28, "macro_f1": 0.07, "loss": 1.7})


def bert() -> Any:
    return AutoModelForSequenceClassification.from_config(tiny.bert_config())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("frozen", "thawed"),
    [
        ("backbone", "embeddings, layers[:]"),
        ("embeddings, layers[:]", "embeddings, layers[0]"),
        ("embeddings, layers[0]", "embeddings"),
        ("embeddings", ""),
        ("layers[0], head", "layers[0]"),
        (None, None),
    ],
)
def test_what_to_thaw_next_is_the_topmost_frozen_unit(frozen: str | None, thawed: str | None) -> None:
    model = bert()
    if frozen is not None:
        freeze(model, frozen)
    found = next_to_thaw(model)
    assert found == thawed
    if found:  # it means what it says
        again = bert()
        freeze(again, found)
        for name, parameter in again.named_parameters():
            assert not (parameter.requires_grad is False and model.get_parameter(name).requires_grad), name


def said(frozen: str | None = "backbone", **changes: Any) -> str:
    model = bert()
    if frozen is not None:
        freeze(model, frozen)
    values: dict[str, Any] = {
        "loss": 0.9,
        "same_answer": 1.7,
        "metrics": {},
        "baseline": None,
        "rows": 0,
        "warned": False,
    }
    return shortfall(model, **values | changes)


def test_a_run_that_learned_is_not_blamed() -> None:
    assert said() == ""
    assert said(metrics={"accuracy": 0.6, "macro_f1": 0.5, "loss": 1.0}, baseline=SAME, rows=500) == ""
    assert said(loss=math.nan) == ""


def test_a_loss_that_stayed_where_it_was() -> None:
    first, second = said(loss=1.6).splitlines()
    assert first == ("Learned too little: the training loss ended at 1.6000; the same answer for every row has 1.7000.")
    assert second == 'Thaw the next unit: --freeze "embeddings, layers[:]".'
    assert said("embeddings", loss=1.6).endswith("Thaw the last unit: no --freeze.")
    thaw = 'First mend what the warning names. Thaw the next unit: --freeze "embeddings, layers[:]".'
    assert said(loss=1.6, warned=True).endswith(thaw)
    assert said(None, loss=1.6).endswith("Everything trains: more rows or --epochs would help.")


@pytest.mark.parametrize(("rows", "blamed"), [(500, True), (5000, False)])
def test_an_evaluation_within_the_noise_of_its_rows(rows: int, blamed: bool) -> None:
    metrics = {"accuracy": 0.31, "macro_f1": 0.08, "loss": 1.7}  # 2 standard errors of 0.28: 0.040, or 0.013
    assert bool(said(metrics=metrics, baseline=SAME, rows=rows)) is blamed


def test_rows_known_by_heart_need_no_thawing() -> None:
    metrics = {"accuracy": 0.2, "macro_f1": 0.07, "loss": 5.0}
    assert said(loss=0.01, metrics=metrics, baseline=SAME, rows=500).endswith(
        "It knows its training rows by heart: more rows would help."
    )


@pytest.mark.parametrize(("rmse", "blamed"), [(1.95, True), (1.7, False), (2.5, True), (math.nan, False)])
def test_values_are_judged_by_their_error(rmse: float, blamed: bool) -> None:
    same = Baseline("the mean", {"rmse": 2.0, "mae": 1.5, "pearson": 0.0, "loss": 4.0})
    metrics = {"rmse": rmse, "mae": 1.0, "pearson": 0.1, "loss": rmse**2}
    assert bool(said(metrics=metrics, baseline=same, rows=200)) is blamed


def test_the_loss_of_the_last_epoch() -> None:
    history = [{"loss": 3.0, "epoch": 1.0}, {"eval_loss": 9.0, "epoch": 2.0}, {"loss": 2.0, "epoch": 2.5}]
    assert last_loss([*history, {"loss": 1.0, "epoch": 3.0}]) == 1.5
    assert math.isnan(last_loss([]))
