"""Adapters of PEFT, as projects put them on a trunk."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, TaskType, get_peft_model

import frostline as fl
from tests.dropin.pairs import assert_profits, assert_same_predictions, compared
from tests.training import tokens
from tests.training.beside import HELD_OUT, both

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

import transformers

KINDS = (fl.Trainer, transformers.Trainer)
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # PEFT asks for it
UPPER = [2, 3]


def adapted(config: Callable[[], Any]) -> Any:
    """A classifier with adapters, whose second halves are drawn as well, as if they had been trained."""
    return get_peft_model(tokens.model(), config())


def lora(**changes: Any) -> Any:
    values: dict[str, Any] = {"task_type": TaskType.SEQ_CLS, "r": 2, "lora_alpha": 4, "lora_dropout": 0.0}
    return LoraConfig(**values | {"target_modules": ["query", "value"]} | changes)


def ia3() -> Any:
    return IA3Config(
        task_type=TaskType.SEQ_CLS,
        target_modules=["key", "value", "output.dense"],
        feedforward_modules=["output.dense"],
    )


def prompt() -> Any:
    return PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3)


UPPER_LORA: dict[str, Callable[[], Any]] = {
    "LoRA": partial(lora, layers_to_transform=UPPER),
    "DoRA": partial(lora, layers_to_transform=UPPER, use_dora=True),
    "LoRA that begins with noise": partial(lora, layers_to_transform=UPPER, init_lora_weights=False),
    "LoRA and biases": partial(lora, layers_to_transform=UPPER, target_modules=["dense"], r=4),
}
EVERYWHERE: dict[str, Callable[[], Any]] = {
    "LoRA": lora,
    "LoRA of all maps": partial(lora, target_modules="all-linear"),
    "LoRA of the embeddings": partial(lora, target_modules=["word_embeddings", "query"]),
    "IA3": ia3,
    "a prompt": prompt,
}


@pytest.mark.parametrize("case", UPPER_LORA)
def test_adapters_on_the_upper_layers(tmp_path: Path, case: str) -> None:
    make = partial(adapted, UPPER_LORA[case])
    assert_profits(compared(tmp_path, make, label_names=["labels"], learning_rate=1e-2, eval_strategy="epoch"))


@pytest.mark.parametrize("case", EVERYWHERE)
def test_adapters_everywhere(tmp_path: Path, case: str) -> None:
    make = partial(adapted, EVERYWHERE[case])
    compared(tmp_path, make, label_names=["labels"], learning_rate=1e-2, eval_strategy="epoch")


def test_no_warning_of_what_is_normal(tmp_path: Path, heard: pytest.LogCaptureFixture) -> None:
    """LoRA's first half cannot move in the first step, as its second one is zero."""
    make = partial(adapted, UPPER_LORA["LoRA"])
    compared(tmp_path, make, label_names=["labels"])
    assert not [message for message in heard.messages if "lora_A" in message]


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")  # of PEFT before 0.19
def test_adapters_that_are_loaded_to_predict(tmp_path: Path) -> None:
    """Nothing trains, and nothing is trained."""
    adapted(partial(lora, init_lora_weights=False)).save_pretrained(tmp_path / "adapters")
    trainers = []
    for kind in KINDS:
        model: Any = PeftModel.from_pretrained(tokens.model(), str(tmp_path / "adapters"))
        assert not any(parameter.requires_grad for parameter in model.parameters())
        args = tokens.arguments(tmp_path / kind.__module__, label_names=["labels"])
        trainers.append(kind(model=model, args=args, data_collator=tokens.collate, eval_dataset=HELD_OUT))
    ours, theirs = trainers
    assert_same_predictions(ours, theirs)
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], abs=1e-4)


def test_adapters_that_are_switched_off(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, make=partial(adapted, lora), freeze=None, label_names=["labels"])
    for trainer in (ours, theirs):
        model: Any = trainer.model
        model.disable_adapter_layers()
    assert_same_predictions(ours, theirs)
    for trainer in (ours, theirs):
        model = trainer.model
        model.enable_adapter_layers()
    assert_same_predictions(ours, theirs)


def test_adapters_that_are_merged_after_training(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, make=partial(adapted, lora), freeze=None, label_names=["labels"], learning_rate=1e-2)
    for trainer in (ours, theirs):
        model: Any = trainer.model
        model.merge_adapter()
    assert_same_predictions(ours, theirs)
    own, other = (dict(trainer.model.named_parameters()) for trainer in (ours, theirs))  # type: ignore[union-attr]
    assert all(torch.allclose(own[name], other[name], atol=1e-4) for name in own)
