from __future__ import annotations

from typing import Any

import pytest

import frostline as fl
from frostline.errors import PlanError
from frostline.plan.phase import Choice, Length, Rate


@pytest.mark.parametrize(
    ("text", "length", "steps"),
    [
        ("1 epoch", Length("epochs", 1.0), 7),
        ("0.5 epochs", Length("epochs", 0.5), 4),
        ("200 steps", Length("steps", 200.0), 200),
        ("25%", Length("share", 0.25), 25),
        ("0.1 %", Length("share", 0.001), 1),
        ("plateau of eval_loss", Length("plateau", 1.0, "eval_loss"), None),
        ("plateau of eval_macro_f1 for 3 evaluations", Length("plateau", 3.0, "eval_macro_f1"), None),
    ],
)
def test_how_long_a_phase_is(text: str, length: Length, steps: int | None) -> None:
    assert Length.read(text) == length
    assert length.steps(per_epoch=7, of_run=100) == steps
    assert fl.Phase("head", until=text).length == length


def test_epochs_of_a_stream_are_not_known() -> None:
    with pytest.raises(PlanError, match=r"counts 2 epochs of data whose length is not known\.\nCount steps"):
        Length.read("2 epochs").steps(per_epoch=None, of_run=100)


@pytest.mark.parametrize(
    "values",
    [
        {"until": "soon"},
        {"until": "0 steps"},
        {"until": "1.5 steps"},
        {"until": "120%"},
        {"until": "plateau of eval_loss for 0 evaluations"},
        {"until": 3},
        {"lr": 0.0},
        {"lr": -1e-3},
        {"lr": float("inf")},
        {"lr": True},
        {"lr": "fast"},
        {"lr": "0x"},
        {"lr": {}},
        {"lr": {"head": "fast"}},
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"warmup": 0},
        {"warmup": 1.5},
        {"warmup": -1},
        {"layers": "2 random"},
        {"layers": "0 random every 5 steps"},
        {"layers": "unsettled every 0 steps"},
    ],
)
def test_what_is_no_phase_is_refused_with_what_was_given(values: dict[str, Any]) -> None:
    (name,) = values
    given = values[name]["head"] if values[name] == {"head": "fast"} else values[name]
    with pytest.raises(PlanError) as caught:
        fl.Phase("head", **values)
    assert str(caught.value).startswith(f"{name} is {given!r}")


@pytest.mark.parametrize("train", ["", "  ", None, 3])
def test_a_phase_names_what_trains(train: Any) -> None:
    with pytest.raises(PlanError, match="Name what trains"):
        fl.Phase(train)


def test_rates() -> None:
    assert fl.Phase("head").rates() == {}
    assert fl.Phase("head", lr=1e-3).rates() == {"all": Rate(1e-3)}
    assert fl.Phase("all", lr={"head": 1e-3, "layers[:2]": "0.5x"}).rates() == {
        "head": Rate(1e-3),
        "layers[:2]": Rate(0.5, is_factor=True),
    }
    assert Rate.read("1e-1 x") == Rate(0.1, is_factor=True)


def test_what_is_chosen() -> None:
    assert fl.Phase("all", layers="2 random every 20 steps").choice == Choice(20, 2)
    assert fl.Phase("all", layers="unsettled every 1 step").choice == Choice(1)
    assert fl.Phase("all").choice is None


def test_in_words() -> None:
    phase = fl.Phase("all", until="2 epochs", lr={"head": 1e-3, "layers": "0.1x"}, layer_decay=0.5, warmup=0.1)
    assert str(phase) == (
        "train all; for 2 epochs; learning rate head: 0.001, layers: 0.1x; layer decay 0.5; warm-up 0.1"
    )
    assert str(fl.Phase("head", until="plateau of eval_loss")) == "train head; until plateau of eval_loss"
