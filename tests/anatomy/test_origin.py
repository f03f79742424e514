"""Origin: which tensors came from the checkpoint."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    T5ForConditionalGeneration,
)

import frostline as fl
from frostline.anatomy.origin import origin_of
from frostline.checkpoints.quiet_loading import quiet
from tests.models import names_of, tiny, tiny_config

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


def load(folder: Path, **options: Any) -> PreTrainedModel:
    with quiet():
        return cast("PreTrainedModel", AutoModelForSequenceClassification.from_pretrained(folder, **options))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A checkpoint of the backbone without a head."""
    BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    return tmp_path


def test_a_head_on_a_backbone_is_new(base: Path) -> None:
    model = load(base)
    origin = origin_of(model)
    assert origin.source == str(base)
    assert origin.new == {"classifier.weight", "classifier.bias"}
    assert origin.unused == ()
    assert origin.mismatched == frozenset()
    words = {name: origin.of(name) for name, _ in model.named_parameters()}
    assert {name for name, word in words.items() if word == "pretrained"} == names_of(model, "bert.")
    assert origin.of("classifier.bias") == "new"


def test_a_folder_is_told_like_the_model_loaded_from_it(base: Path) -> None:
    of_folder, of_model = fl.inspect(str(base)), fl.inspect(load(base))
    assert of_folder.origin == of_model.origin
    assert [row.origin for row in of_folder.rows] == ["new", "pretrained", "pretrained", "pretrained"]
    assert str(of_folder) == str(of_model)


def test_a_language_model_s_head_is_not_used_and_the_pooler_is_new(tmp_path: Path) -> None:
    BertForMaskedLM(tiny_config("bert")).save_pretrained(tmp_path)
    origin = origin_of(load(tmp_path))
    assert origin.new == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert origin.unused
    assert set(origin.unused) >= {"cls.predictions.bias", "cls.predictions.transform.dense.weight"}
    assert all(name.startswith("cls.") for name in origin.unused)
    assert "In the checkpoint, but not used: cls.predictions" in str(fl.inspect(str(tmp_path)))


def test_another_number_of_labels(tmp_path: Path) -> None:
    tiny("bert", num_labels=2).save_pretrained(tmp_path)
    origin = origin_of(load(tmp_path, num_labels=5, ignore_mismatched_sizes=True))
    assert origin.mismatched == origin.new == {"classifier.weight", "classifier.bias"}
    assert origin_of(load(tmp_path)).new == frozenset()


def test_built_from_a_configuration(base: Path) -> None:
    model = tiny("bert")
    assert origin_of(model).source is None
    assert {origin_of(model).of(name) for name, _ in model.named_parameters()} == {"unknown"}
    assert {row.origin for row in fl.inspect(model).rows} == {"unknown"}


def test_built_from_the_configuration_of_a_checkpoint_but_not_from_its_weights(base: Path) -> None:
    config = AutoConfig.from_pretrained(base)
    model = cast("Any", AutoModelForSequenceClassification).from_config(config)
    assert model.name_or_path == str(base)
    assert origin_of(model).of("bert.pooler.dense.weight") == "unknown"


def test_no_model_of_transformers() -> None:
    assert origin_of(nn.Linear(2, 2)).of("weight") == "unknown"


def test_a_checkpoint_that_is_gone(base: Path) -> None:
    model = load(base)
    shutil.rmtree(base)
    assert origin_of(model).source is None


def test_old_names_of_layer_norm(base: Path) -> None:
    file = base / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}  # the file is written anew
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert sum(name.endswith((".gamma", ".beta")) for name in old) == 10
    save_file(old, file, metadata={"format": "pt"})
    model = load(base)
    assert torch.equal(model.get_parameter("bert.embeddings.LayerNorm.weight"), tensors["embeddings.LayerNorm.weight"])
    assert origin_of(model).new == {"classifier.weight", "classifier.bias"}
    assert origin_of(model).unused == ()


def test_a_tied_tensor_under_one_of_its_names(tmp_path: Path) -> None:
    T5ForConditionalGeneration(tiny_config("t5")).save_pretrained(tmp_path)
    assert "decoder.embed_tokens.weight" not in load_file(tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert origin_of(model).new == names_of(model, "classification_head.")


def test_a_checkpoint_in_two_files(tmp_path: Path) -> None:
    BertModel(tiny_config("bert")).save_pretrained(tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert origin_of(load(tmp_path)).new == {"classifier.weight", "classifier.bias"}


def test_a_tensor_that_the_checkpoint_lacks(tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    inspection = fl.inspect(load(tmp_path))
    assert inspection.origin.new == {"bert.encoder.layer.1.output.dense.bias"}
    assert {row.name: row.origin for row in inspection.rows}["layer 1"] == "mixed"


def test_the_model_is_left_as_it_is(base: Path) -> None:
    model = load(base)
    model.train()
    before = fl.fingerprint(model), {name: id(parameter) for name, parameter in model.named_parameters()}
    origin_of(model)
    assert (fl.fingerprint(model), {name: id(parameter) for name, parameter in model.named_parameters()}) == before
    assert model.training


def test_a_class_of_one_s_own(base: Path) -> None:
    class Mine(BertForSequenceClassification):  # type: ignore[no-untyped-call]
        pass

    with quiet():
        model = Mine.from_pretrained(base)
    assert origin_of(model).new == {"classifier.weight", "classifier.bias"}


def test_what_was_put_in_the_place_of_a_head_is_new(tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path)
    model = load(tmp_path)
    assert origin_of(model).new == frozenset()
    model.classifier = nn.Linear(16, 7)
    assert origin_of(model).new == origin_of(model).mismatched == {"classifier.weight", "classifier.bias"}
    model.classifier = nn.Sequential(nn.Linear(16, 4), nn.Linear(4, 2))
    assert origin_of(model).new == names_of(model, "classifier.")
    assert origin_of(model).unknown == frozenset()


def test_a_quantised_checkpoint_is_named_and_read(tmp_path: Path) -> None:
    """As bitsandbytes leaves one: packed weights, and tables beside them."""
    tiny("bert").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    tensors[name] = torch.zeros(tensors[name].numel() // 2, 1, dtype=torch.uint8)
    tensors[f"{name}.absmax"] = torch.zeros(4)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    file = tmp_path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    changes = {
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "attn_implementation": "flash_attention_2",
    }
    file.write_text(json.dumps(config | changes), encoding="utf-8")
    found = fl.inspect(tmp_path)
    assert found.origin.new == frozenset()
    assert "quantised (bitsandbytes)" in str(found)
