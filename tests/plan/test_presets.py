from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import frostline as fl
from frostline.errors import PlanError
from frostline.plan.phase_on_model import compile_schedule
from frostline.plan.presets import PRESETS, preset, schedule_for
from frostline.plan.schedule import Schedule
from frostline.plan.schedule_file import read_schedule, schedule_text
from tests.models import tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("name", PRESETS)
def test_each_fits_and_can_be_edited(tmp_path: Path, name: str, kind: str) -> None:
    model = tiny(kind)
    schedule = preset(model, name)
    file = tmp_path / "plan.toml"
    file.write_text(schedule_text(schedule), encoding="utf-8")
    assert read_schedule(file) == schedule
    for phase in compile_schedule(model, schedule):
        assert any(name in phase.trains for name in model.state_dict() if "classif" in name or "score" in name)
    assert schedule.phases[-1].until is None


def trained(name: str, layers: int = 3) -> list[str]:
    return [phase.train for phase in preset(tiny("bert", num_hidden_layers=layers), name).phases]


def test_what_they_train() -> None:
    assert trained("head-only") == ["head"]
    assert trained("linear-probe-then-fine-tune") == ["head", "all"]
    assert trained("gradual-unfreezing") == [
        "head",
        "layers[2], pooler, head",
        "layers[1:], pooler, head",
        "layers[:], pooler, head",
        "all",
    ]
    assert trained("surgical", layers=6) == ["layers[:2], head"]
    assert trained("bitfit") == ["bias, head"]
    assert trained("norms-only") == ["norms, head"]


def test_shares_of_a_gradual_unfreezing_leave_as_much_for_the_last_phase() -> None:
    phases = preset(tiny("bert", num_hidden_layers=3), "gradual-unfreezing").phases
    assert [phase.until for phase in phases] == ["20%"] * 4 + [None]


def test_fine_tune_ends_at_a_hundredth_of_the_top_s_rate() -> None:
    (_, phase) = compile_schedule(model := tiny("bert", num_hidden_layers=3), preset(model, "fine-tune"))
    rates = [phase.factor(name, 1.0) for name, _ in model.named_parameters()]
    assert max(rates) == pytest.approx(0.1)
    assert min(rates) == pytest.approx(0.001, rel=0.02)


def test_what_does_not_fit() -> None:
    with pytest.raises(PlanError, match=r"no preset 'gradual-unfreeze'\.\nDid you mean 'gradual-unfreezing'"):
        preset(tiny("bert"), "gradual-unfreeze")
    with pytest.raises(PlanError, match=r"trains a head, and .* has none"):
        preset(tiny("bert").base_model, "head-only")
    with pytest.raises(PlanError, match=r"'lisa' chooses among layers, and BertForSequenceClassification has 1"):
        preset(tiny("bert", num_hidden_layers=1), "lisa")


def test_what_is_meant(tmp_path: Path) -> None:
    model = tiny("bert")
    phases = [fl.Phase("head")]
    file = tmp_path / "plan.toml"
    file.write_text("[[phase]]\ntrain = 'head'\n", encoding="utf-8")
    for given in (phases, tuple(phases), Schedule(tuple(phases)), "head-only", str(file), file):
        assert schedule_for(model, given) == Schedule(tuple(phases))
    with pytest.raises(PlanError, match=r"schedule is 'head-onyl'.*\nDid you mean 'head-only'"):
        schedule_for(model, "head-onyl")
    with pytest.raises(PlanError, match=r"There is no schedule at 'nosuch\.toml'"):
        schedule_for(model, "nosuch.toml")
    with pytest.raises(PlanError, match="neither phases, nor a preset"):
        schedule_for(model, 3)
