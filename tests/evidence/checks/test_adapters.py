from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from frostline.evidence.checks.run import check
from tests.evidence.checks.cases import adamw, found, loaded, must_find, rows
from tests.models import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


# PEFT still asks for what transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def adapted(model: Any = None, **options: Any) -> nn.Module:
    return cast("nn.Module", get_peft_model(model or tiny("bert"), LoraConfig(target_modules=["query"], **options)))


@pytest.mark.parametrize("options", [{}, {"bias": "all"}, {"bias": "lora_only"}])
def test_a_correct_adapter(options: Any) -> None:
    model = adapted(task_type="SEQ_CLS", **options)
    findings = check(model, adamw(model))
    assert findings.ok, str(findings)


def test_a_correct_prompt() -> None:
    config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    model = cast("nn.Module", get_peft_model(tiny("bert"), config))
    findings = check(model, adamw(model), rows(attention_mask=torch.ones(4, 7, dtype=torch.long)))
    assert set(findings.slugs) == {"dropout-in-frozen"}


def test_peft_base_trains() -> None:
    model = adapted(task_type="SEQ_CLS")
    model.get_parameter("base_model.model.bert.pooler.dense.weight").requires_grad_(True)
    row = must_find("peft-base-trains", model)
    assert (row.severity, row.units) == ("warning", ("pooler",))
    assert found("peft-base-trains", tiny("bert")) is None


def test_head_not_saved(tmp_path: Path) -> None:
    model = adapted(loaded(tmp_path))
    row = must_find("head-not-saved", model)
    assert (row.severity, row.units) == ("warning", ("head",))
    model.get_submodule("base_model.model.classifier").requires_grad_(True)
    assert must_find("head-not-saved", model).severity == "error"
    assert found("head-not-saved", adapted(loaded(tmp_path), task_type="SEQ_CLS")) is None
    assert found("head-not-saved", adapted(loaded(tmp_path), modules_to_save=["classifier"])) is None
    assert found("head-not-saved", loaded(tmp_path)) is None


def test_a_head_that_was_trained_before(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    tiny("bert").save_pretrained(tmp_path)
    model = adapted(AutoModelForSequenceClassification.from_pretrained(tmp_path))
    assert found("head-not-saved", model) is None


@pytest.mark.parametrize(
    ("layers", "lowest", "saved"),
    [([0], "layer 0", "saves nothing"), ([1], "layer 1", "saves about 4 %"), ([2], None, ""), ([11], None, "")],
)
def test_adapters_low(layers: list[int], lowest: str | None, saved: str) -> None:
    model = adapted(tiny("bert", num_hidden_layers=12), task_type="SEQ_CLS", layers_to_transform=layers)
    row = found("adapters-low", model)
    assert (row is None) == (lowest is None)
    if row is not None:
        assert (row.severity, row.units) == ("note", (lowest,))
        assert f"each step runs {12 - layers[0]} of 12 layers forward and backward" in row.cause
        assert row.cause.endswith(f"{saved}.")


def test_adapters_on_the_embeddings_are_the_lowest() -> None:
    config = LoraConfig(target_modules=["word_embeddings", "query"], task_type="SEQ_CLS")
    row = must_find("adapters-low", cast("nn.Module", get_peft_model(tiny("bert"), config)))
    assert row.units == ("embeddings",)
    frozen = adapted(task_type="SEQ_CLS", inference_mode=True)
    assert found("adapters-low", frozen) is None
    assert found("adapters-low", tiny("bert")) is None
