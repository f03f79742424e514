"""Arguments for a short run, and what is told of a model: what the tests of the Trainer share."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

import frostline as fl

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

LINE = "embeddings, layers[0]"
FROZEN = "bert.encoder.layer.0.output.dense.weight"
Batch = list[dict[str, Any]]


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two epochs of three steps, a checkpoint after each."""
    values = {"output_dir": str(folder / "run"), "per_device_train_batch_size": 4, "num_train_epochs": 2}
    values |= {"learning_rate": 1e-2, "report_to": "none", "disable_tqdm": True, "save_strategy": "epoch"}
    return values | {"use_cpu": True, "dataloader_pin_memory": False} | changes


def arguments(folder: Path, **changes: Any) -> fl.TrainingArguments:
    """The same as arguments."""
    return fl.TrainingArguments(**options(folder, **changes))


def adapted(model: Any, **options: Any) -> Any:
    """The model with adapters of rank 2 on its attention, and its head as it is."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2, **options))


def trains(model: nn.Module | None) -> set[str]:
    """Names of the parameters that train."""
    assert model is not None
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's tensors, copied."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two tables hold the same tensors, bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
