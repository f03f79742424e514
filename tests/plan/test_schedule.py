from __future__ import annotations

import pytest
from torch import nn

import frostline as fl
from frostline.errors import PlanError, SelectorError
from frostline.plan.phase_on_model import compile_schedule
from frostline.plan.schedule import Schedule
from tests.models import tiny

BOTH = (fl.Phase("head", until="1 epoch"), fl.Phase("all"))


def test_only_the_last_phase_may_be_open() -> None:
    assert Schedule(BOTH).phases == BOTH
    with pytest.raises(PlanError, match="Phase 2: until is missing"):
        Schedule((*BOTH, fl.Phase("head")))
    with pytest.raises(PlanError, match="there is no phase"):
        Schedule(())
    with pytest.raises(PlanError, match="Phase 1: 'head' is no Phase"):
        Schedule(("head",))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="optimizer_state is 'lost'"):
        Schedule(BOTH, "lost")  # type: ignore[arg-type]


def test_as_plain_values_and_back() -> None:
    schedule = Schedule((fl.Phase("head", until="1 epoch", lr={"head": "2x"}), fl.Phase("all", warmup=10)), "reset")
    assert Schedule.from_dict(schedule.to_dict()) == schedule
    assert schedule.to_dict() == {
        "optimizer_state": "reset",
        "phase": [{"train": "head", "until": "1 epoch", "lr": {"head": "2x"}}, {"train": "all", "warmup": 10}],
    }


@pytest.mark.parametrize(
    ("train", "lr", "message"),
    [
        ("hed", None, "Phase 2: .*hed"),
        ("all, ~all", None, "Phase 2: train = 'all, ~all' trains nothing"),
        ("head", {"layers[0]": 1e-3}, r"Phase 2: lr names 'layers\[0\]', of which nothing trains"),
        ("head", {"layer[0]": 1e-3}, r"Phase 2: .*layer\[0\]"),
    ],
)
def test_a_selector_that_does_not_fit_names_its_phase(train: str, lr: dict[str, float] | None, message: str) -> None:
    schedule = Schedule((BOTH[0], fl.Phase(train, lr=lr)))
    with pytest.raises((PlanError, SelectorError), match=message):
        compile_schedule(tiny("bert"), schedule)


def test_more_layers_than_there_are_cannot_be_drawn() -> None:
    schedule = Schedule((fl.Phase("head, layers[0]", layers="2 random every 5 steps"),))
    with pytest.raises(PlanError, match=r"is about 2 of the layers that train, and .* has 1\."):
        compile_schedule(tiny("bert"), schedule)
    with pytest.raises(PlanError, match="has 0"):
        compile_schedule(nn.Linear(2, 2), Schedule((fl.Phase("all", layers="unsettled every 5 steps"),)))


def test_what_a_rate_is_made_of() -> None:
    model = tiny("bert")
    (phase,) = compile_schedule(model, Schedule((fl.Phase("all", lr={"all": 1e-2, "head": "3x"}, layer_decay=0.5),)))
    layers = model.config.num_hidden_layers
    weights = {name: phase.factor(name, 1e-3) for name, _ in model.named_parameters()}
    assert weights["classifier.weight"] == 3.0
    assert weights["bert.pooler.dense.weight"] == pytest.approx(10.0)
    assert weights[f"bert.encoder.layer.{layers - 1}.output.dense.weight"] == pytest.approx(10.0 * 0.5)
    assert weights["bert.encoder.layer.0.output.dense.weight"] == pytest.approx(10.0 * 0.5**layers)
    assert weights["bert.embeddings.word_embeddings.weight"] == pytest.approx(10.0 * 0.5 ** (layers + 1))


def test_what_is_drawn_follows_from_the_step_and_the_seed() -> None:
    model = tiny("bert", num_hidden_layers=6)
    (phase,) = compile_schedule(model, Schedule((fl.Phase("all", layers="2 random every 5 steps"),)))
    drawn = [phase.training_at(step, 1, 0) for step in range(40)]
    assert drawn == [phase.training_at(step, 1, 0) for step in range(40)]
    assert len(set(drawn[:5])) == 1
    assert len(set(drawn)) > 3
    assert drawn != [phase.training_at(step, 2, 0) for step in range(40)]
    always = frozenset.intersection(*drawn)
    assert "classifier.weight" in always
    assert all(sum(f"layer.{layer}.output.dense.bias" in name for name in names for layer in range(6)) == 2
               for names in drawn)  # fmt: skip


def test_layers_settle_from_below() -> None:
    model = tiny("bert", num_hidden_layers=3)
    (phase,) = compile_schedule(model, Schedule((fl.Phase("all", layers="unsettled every 5 steps"),)))
    assert len(phase.layers) == 4  # and the embeddings
    assert phase.training_at(7, 0, 0) == phase.trains
    left = phase.training_at(7, 0, 2)
    assert not any("embeddings" in name or ".layer.0." in name for name in left)
    assert any(".layer.1." in name for name in left)
