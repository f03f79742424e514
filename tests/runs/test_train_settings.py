from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from frostline.errors import FrostlineError, PlanError
from frostline.plan.plan import Plan
from frostline.runs.devices import device_options
from frostline.runs.train_settings import TrainSettings


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(model="model", data="rows.csv", **changes)


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"epochs": 0}, "--epochs is 0; it must be above 0"),
        ({"epochs": -1.5}, "--epochs is -1.5"),
        ({"epochs": math.inf}, "--epochs is inf"),
        ({"epochs": math.nan}, "--epochs is nan"),
        ({"learning_rate": 0.0}, "--lr is 0.0; it must be above 0"),
        ({"learning_rate": -1e-5}, "--lr is -1e-05"),
        ({"learning_rate": math.nan}, "--lr is nan"),
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ({"batch_size": 10**20}, f"--batch-size is {10**20}; it must be at least 1, and at most 2,147,483,647"),
        ({"limit": 2**31}, f"--limit is {2**31}; it must be at least 1, and at most 2,147,483,647"),
        ({"epochs": 1e308}, r"--epochs is 1e\+308; it must be above 0, and at most 1,000,000"),
        ({"max_length": 0}, "--max-length is 0"),
        ({"eval_data": "0%"}, "--eval is '0%'; a share is above 0% and below 100%."),
        ({"eval_data": "100 %"}, "--eval is '100 %'"),
        ({"eval_data": "nan%"}, "--eval is 'nan%'"),
        ({"eval_data": "ten%"}, "--eval is 'ten%'; a share is written 10%."),
        ({"limit": 0}, "--limit is 0"),
        ({"limit": -3}, "--limit is -3"),
        ({"patience": 0, "eval_data": "x"}, "--patience is 0"),
        ({"patience": 1}, "--patience needs evaluation data"),
        ({"seed": -1}, "--seed is -1; it must be from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed is 4294967296"),
    ],
)
def test_numbers_that_cannot_be_used(changes: dict[str, Any], phrase: str) -> None:
    with pytest.raises(FrostlineError, match=phrase) as caught:
        settings(**changes)
    assert caught.value.exit_status == 2


def test_numbers_at_the_edge_can() -> None:
    made = settings(epochs=1e-3, learning_rate=1e-30, batch_size=1, max_length=1, limit=1, seed=2**32 - 1)
    assert made.seed == 4294967295
    assert settings(patience=1, eval_data="x", seed=0).patience == 1


def test_the_plan() -> None:
    assert settings().plan() is None
    assert settings(freeze="backbone", frozen_mode="train").plan() == Plan("backbone", None, "train")
    assert settings(train_only="head").plan() == Plan(None, "head")
    with pytest.raises(PlanError, match="either freeze or train_only"):
        settings(freeze="backbone", train_only="head")


def test_as_plain_values() -> None:
    made = settings(text_columns=("a", "b"))
    assert json.loads(json.dumps(made.to_dict()))["text_columns"] == ["a", "b"]
    assert TrainSettings(**made.to_dict()) == made


@pytest.fixture
def _no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("_no_accelerator")
@pytest.mark.parametrize(
    ("device", "dtype", "phrase"),
    [
        ("cuda", "fp32", "torch finds no such device"),
        ("mps", "fp32", "torch finds no such device"),
        ("cpu", "fp16", "needs a CUDA device"),
        ("auto", "fp16", "needs a CUDA device"),
    ],
)
def test_what_this_machine_does_not_have(device: str, dtype: str, phrase: str) -> None:
    with pytest.raises(FrostlineError, match=phrase):
        device_options(device, dtype)


@pytest.mark.usefixtures("_no_accelerator")
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_without_an_accelerator_the_cpu_is_taken(device: str) -> None:
    expected = {"use_cpu": True, "bf16": False, "fp16": False, "dataloader_pin_memory": False}
    assert device_options(device, "fp32") == expected
    assert device_options(device, "bf16") == expected | {"bf16": True}


def test_with_one_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_options("auto", "fp16") == {
        "use_cpu": False,
        "bf16": False,
        "fp16": True,
        "dataloader_pin_memory": True,
    }
    assert device_options("cpu", "fp32")["use_cpu"] is True
    with pytest.raises(FrostlineError):
        device_options("cpu", "fp16")
