"""Plans: what they set, and their file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import frostline as fl
from frostline.errors import PlanError, SelectorError
from frostline.plan.plan import PLAN_FILE
from tests.models import names_of, tiny

if TYPE_CHECKING:
    from pathlib import Path

PLANS = [
    fl.Plan(freeze="embeddings, layers[:8]"),
    fl.Plan(freeze="backbone", frozen_mode="train"),
    fl.Plan(train_only="head, ~bias"),
]


def test_freeze_decides_on_what_it_means_only() -> None:
    model = tiny("bert", meta=True)
    flags = fl.Plan(freeze="backbone, ~pooler").flags(model, fl.ModelMap.of(model))
    assert flags == dict.fromkeys(names_of(model, "bert.embeddings", "bert.encoder"), False)


def test_train_only_decides_on_everything() -> None:
    model = tiny("bert", meta=True)
    flags = fl.Plan(train_only="head").flags(model, fl.ModelMap.of(model))
    assert flags == {name: name.startswith("classifier.") for name, _ in model.named_parameters()}


def test_a_selector_that_does_not_fit() -> None:
    model = tiny("bert", meta=True)
    with pytest.raises(SelectorError, match="0 to 1"):
        fl.Plan(freeze="layers[7]").flags(model, fl.ModelMap.of(model))
    with pytest.raises(SelectorError, match="empty"):
        fl.Plan(freeze="").flags(model, fl.ModelMap.of(model))


def test_in_words() -> None:
    assert [str(plan) for plan in PLANS] == [
        "freeze embeddings, layers[:8]",
        "freeze backbone (frozen modules follow model.train())",
        "train only head, ~bias",
    ]


@pytest.mark.parametrize("plan", PLANS)
def test_values_and_file_bring_it_back(plan: fl.Plan, tmp_path: Path) -> None:
    assert fl.Plan.from_dict(plan.to_dict()) == plan
    file = plan.save(tmp_path)
    assert file == tmp_path / PLAN_FILE
    assert fl.Plan.load(tmp_path) == plan
    assert fl.Plan.load(str(file)) == plan


def test_what_the_file_holds(tmp_path: Path) -> None:
    text = PLANS[0].save(tmp_path).read_text(encoding="utf-8")
    assert json.loads(text) == {
        "version": 1,
        "freeze": "embeddings, layers[:8]",
        "train_only": None,
        "frozen_mode": "eval",
    }


def test_of_a_model_as_it_stands() -> None:
    model = tiny("bert", meta=True)
    assert fl.Plan.of(model, frozen_mode="eval") is None
    model.get_submodule("bert.embeddings").requires_grad_(False)
    model.get_submodule("bert.encoder.layer.0").requires_grad_(False)
    assert fl.Plan.of(model, frozen_mode="train") == fl.Plan(freeze="embeddings, layers[0]", frozen_mode="train")


@pytest.mark.parametrize("selectors", [{}, {"freeze": "all", "train_only": "head"}])
def test_exactly_one_selector(selectors: dict[str, str]) -> None:
    with pytest.raises(PlanError, match="either freeze or train_only"):
        fl.Plan(**selectors)  # type: ignore[arg-type]


def test_an_unknown_mode() -> None:
    with pytest.raises(PlanError, match="frozen_mode='off' is unknown"):
        fl.Plan(freeze="all", frozen_mode="off")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ([], "A plan is an object"),
        ("freeze", "A plan is an object"),
        ({"version": 1, "freeze": "all", "color": "blue"}, "'color'"),
        ({"freeze": "all"}, "version None"),
        ({"version": 2, "freeze": "all"}, "version 2"),
        ({"version": 1, "freeze": ["all"]}, r"freeze is \['all'\]"),
        ({"version": 1, "train_only": 3}, "train_only is 3"),
        ({"version": 1}, "either freeze or train_only"),
        ({"version": 1, "freeze": "all", "frozen_mode": "off"}, "'off' is unknown"),
        ({"version": 1, "freeze": "all", "frozen_mode": ["eval"]}, "is unknown"),
    ],
)
def test_values_that_are_no_plan(values: Any, phrase: str) -> None:
    with pytest.raises(PlanError, match=phrase):
        fl.Plan.from_dict(values)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"version": 1}'])
def test_a_file_that_is_no_plan(content: bytes, tmp_path: Path) -> None:
    (tmp_path / PLAN_FILE).write_bytes(content)
    with pytest.raises(PlanError):
        fl.Plan.load(tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"There is no plan at .*plan\.json"):
        fl.Plan.load(tmp_path)
    with pytest.raises(PlanError, match=r"There is no plan at .*other\.json"):
        fl.Plan.load(tmp_path / "other.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"freeze": "\\ud800"}', "{", "\x00"])
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match="cannot be read"):
        fl.Plan.load(tmp_path)
