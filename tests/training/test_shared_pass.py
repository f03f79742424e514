"""One pass for several plans leaves what each training run of them would compute by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import frostline as fl
from frostline.engine.known_checks import sharing_checks
from frostline.engine.selfcheck import admission
from frostline.engine.settings import EngineSettings
from frostline.training.shared_pass import fill_frost_lines
from tests.training import tokens

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FREEZES = ("embeddings", "embeddings, layers[:1]", tokens.LOWER, "backbone")
ROWS, OTHER = tokens.rows(), tokens.rows(24, seed=1)


def fill(folder: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {"sample": tokens.collate(ROWS[:8]), "budget": 1 << 30}
    model: Any = fl.Trainer(tokens.model(), tokens.arguments(folder / "run")).model
    given = (model, ["", *FREEZES], (ROWS, OTHER), tokens.padding(), EngineSettings(), folder)
    return fill_frost_lines(*given, **values | changes)


def train(folder: Path, freeze: str, **changes: Any) -> fl.Trainer:
    arguments = tokens.arguments(folder / "run", store_dir=str(folder), **{"store": "disk"} | changes)
    trainer = fl.Trainer(tokens.model(), arguments, train_dataset=ROWS, data_collator=tokens.padding(), freeze=freeze)
    trainer.train()
    return trainer


def test_runs_find_all_rows_stored(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    shared = fill(tmp_path, told=lambda done, total: told.append((done, total)))
    assert shared.rows == 64
    assert told[-1] == (64, 64)
    assert list(shared.shares) == list(FREEZES[1:])  # beneath layer 0 there is no layer to skip
    shares = list(shared.shares.values())
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= shared.seconds
    for freeze in FREEZES[1:]:
        report = train(tmp_path, freeze).engine_report
        assert report is not None
        assert (report.rows, report.computed) == (64, 0)


def test_a_run_ends_as_without_it(tmp_path: Path) -> None:
    fill(tmp_path)
    shared, alone = train(tmp_path, tokens.LOWER), train(tmp_path / "alone", tokens.LOWER)
    assert alone.engine_report is not None
    assert alone.engine_report.computed == 40
    pairs = [model.state_dict() for model in (shared.model, alone.model) if model is not None]
    assert all(torch.equal(value, pairs[1][name]) for name, value in pairs[0].items())


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model: Any = tokens.model()
    model.bert.encoder.layer[1].eval()
    modes = [module.training for module in model.modules()]
    given = (model, FREEZES, (ROWS,), tokens.padding(), EngineSettings(), tmp_path)
    fill_frost_lines(*given, sample=tokens.collate(ROWS[:8]), budget=1 << 30)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())


def test_budget_is_for_all_stores_together(tmp_path: Path) -> None:
    assert fill(tmp_path, budget=0).rows == 0


def test_checks_are_shared_by_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    whole = admission._Trial.run

    def run(*given: Any) -> Any:
        tried.append(1)
        return whole(*given)

    monkeypatch.setattr(admission._Trial, "run", run)
    with sharing_checks({}):
        one = train(tmp_path, "backbone")
        before = len(tried)
        other = train(tmp_path, "backbone")
        assert len(tried) == before
        train(tmp_path, tokens.LOWER)  # another depth is tried
        assert len(tried) > before
    between = len(tried)
    train(tmp_path, "backbone")
    assert len(tried) > between  # outside nothing is shared
    for name, value in one.model.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, other.model.state_dict()[name])  # type: ignore[union-attr]
