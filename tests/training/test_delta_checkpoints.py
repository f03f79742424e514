"""Checkpoints as deltas of what training started from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

import frostline as fl
from frostline.errors import ModelError, SettingsError
from frostline.training.delta_checkpoints import DELTA_FOLDER
from tests.training.pretrained import arguments

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"input_ids": torch.arange(5 + row, 14 + row), "labels": torch.tensor(row % 2)} for row in range(12)]


def trainer_for(model_folder: Path, place: Path, **changes: Any) -> fl.Trainer:
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder)
    return fl.Trainer(model, arguments(place, freeze="backbone", **changes), train_dataset=ROWS, eval_dataset=ROWS[:4])


def state_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_checkpoints_hold_the_difference_only(tmp_path: Path, bert: Path) -> None:
    trainer = trainer_for(bert, tmp_path, save_deltas=True)
    trainer.train()
    folder = tmp_path / "run" / "checkpoint-6"
    assert not list(folder.glob("model*.safetensors"))
    assert (folder / "fingerprint.json").is_file()
    assert (folder / "optimizer.pt").is_file()
    rebuilt = fl.load_delta(folder / DELTA_FOLDER)
    assert same(state_of(rebuilt), state_of(trainer.model))
    names = {file.name for file in (folder / DELTA_FOLDER).iterdir()}
    assert {"config.json", "plan.json"} <= names
    small = sum(file.stat().st_size for file in (folder / DELTA_FOLDER).glob("*.safetensors"))
    assert small < (bert / "model.safetensors").stat().st_size / 10
    trainer.save_model(str(tmp_path / "whole"))  # what the user saves is whole
    assert (tmp_path / "whole" / "model.safetensors").is_file()


def test_resumed_from_a_delta_equals_uninterrupted(tmp_path: Path, bert: Path) -> None:
    whole = trainer_for(bert, tmp_path / "whole")
    whole.train()
    trainer_for(bert, tmp_path / "first", save_deltas=True).train()
    resumed = trainer_for(bert, tmp_path / "first", save_deltas=True)
    resumed.train(resume_from_checkpoint=str(tmp_path / "first" / "run" / "checkpoint-3"))
    assert same(state_of(whole.model), state_of(resumed.model))
    assert resumed.proof is not None
    assert resumed.proof.ok
    assert all(unit.verdict == "moved" for unit in resumed.proof.units if unit.name == "head")


def test_the_best_model_is_loaded_from_its_delta(tmp_path: Path, bert: Path) -> None:
    kept = []
    for deltas in (False, True):
        trainer = trainer_for(
            bert,
            tmp_path / str(deltas),
            save_deltas=deltas,
            eval_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="loss",
            greater_is_better=True,  # so that the first epoch is the best
        )
        trainer.train()
        assert trainer.state.best_global_step == 3
        kept.append(state_of(trainer.model))
    assert same(*kept)


def test_another_base_is_refused(tmp_path: Path, bert: Path, quick_bert: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bert, base)
    trainer_for(base, tmp_path, save_deltas=True).train()
    shutil.copyfile(quick_bert / "model.safetensors", base / "model.safetensors")
    with pytest.raises(ModelError, match="base"):
        trainer_for(base, tmp_path, save_deltas=True).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3")
        )


def test_a_model_from_no_checkpoint_is_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model: Any = BertForSequenceClassification(config)
    with pytest.raises(SettingsError, match="not loaded by from_pretrained"):
        fl.Trainer(model, arguments(tmp_path, save_deltas=True), train_dataset=ROWS)


def test_a_model_from_a_delta_is_no_base(tmp_path: Path, bert: Path) -> None:
    fl.save_delta(bert, bert, tmp_path / "delta")
    model = fl.load_delta(tmp_path / "delta")
    with pytest.raises(SettingsError, match=r"is a delta itself; rebuild it by 'frostline delta load' first"):
        fl.Trainer(model, arguments(tmp_path, save_deltas=True), train_dataset=ROWS)
