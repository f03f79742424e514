from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForSequenceClassification, BertForSequenceClassification

import frostline as fl
from frostline.checkpoints.classifier import load_classifier, load_tokenizer, position_limit, refuse_strange_tokens
from frostline.checkpoints.skeleton import classifier_class, load_config, skeleton
from frostline.checkpoints.source import Source, locate
from frostline.errors import ModelError
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return tiny.copy_of(bert, tmp_path / "model")


def configure(model: Path, file: str = "config.json", **changes: Any) -> None:
    values = json.loads((model / file).read_text(encoding="utf-8"))
    (model / file).write_text(json.dumps(values | changes), encoding="utf-8")


def error_of(model: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_classifier(str(model))
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 2, text
    return text


def built(kind: str, **changes: Any) -> PreTrainedModel:
    """A classifier with random weights; as in released models, RoBERTa's table has two rows more than it takes."""
    config = AutoConfig.for_model(kind, **changes)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    return model


def test_the_base_is_that_of_the_checkpoint_and_the_head_has_the_labels_asked_for(bert: Path) -> None:
    model, tokenizer = load_classifier(str(bert), num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    held = tiny.weights(bert)
    state = model.state_dict()
    assert all(torch.equal(state[f"bert.{name}"], tensor) for name, tensor in held.items())
    assert state["classifier.weight"].shape == (3, 16)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert not model.training
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0


def test_weights_of_another_dtype_are_loaded_in_fp32(tmp_path: Path) -> None:
    folder = tiny.save_bert(tmp_path / "model")
    classifier_, tokenizer = load_classifier(str(folder))
    classifier_.bfloat16().save_pretrained(tmp_path / "half")
    tokenizer.save_pretrained(tmp_path / "half")
    loaded, _ = load_classifier(str(tmp_path / "half"))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_head_of_another_shape_is_left_out(bert: Path, tmp_path: Path) -> None:
    first, tokenizer = load_classifier(str(bert), num_labels=2)
    first.save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    second, _ = load_classifier(str(tmp_path / "two"), num_labels=5)
    assert second.get_parameter("classifier.weight").shape == (5, 16)
    assert torch.equal(second.state_dict()["bert.pooler.dense.weight"], first.state_dict()["bert.pooler.dense.weight"])


def test_a_pickle_of_tensors_is_loaded(model: Path, bert: Path) -> None:
    torch.save(tiny.weights(bert), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    loaded, _ = load_classifier(str(model))
    assert all(torch.equal(loaded.state_dict()[f"bert.{name}"], tensor) for name, tensor in tiny.weights(bert).items())


def test_a_damaged_file_is_told_before_anything_is_built(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", lambda *_, **__: pytest.fail("built"))
    assert "are damaged" in error_of(model)


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"model_type": "nosuch"}, "model type `nosuch`"),
        ({"model_type": 3}, "cannot be used"),
        ({"model_type": "vit"}, "of the type 'vit', for which transformers has no sequence classifier"),
        ({"model_type": "clip"}, "no sequence classifier"),
        ({"hidden_size": "big"}, "cannot be "),
        ({"hidden_size": None}, "cannot be "),
        ({"hidden_size": 15}, "not a multiple of the number of attention heads"),
        ({"hidden_act": "nosuch"}, "nosuch"),
        ({"vocab_size": -5}, "cannot be loaded"),
    ],
)
def test_a_configuration_that_makes_no_classifier(model: Path, changes: dict[str, Any], phrase: str) -> None:
    configure(model, **changes)
    text = error_of(model)
    assert phrase in text
    assert str(model) in text


def test_a_configuration_that_is_read_for_the_tokenizer(model: Path) -> None:
    configure(model, num_labels="2x")
    said = rf"^The configuration in '{re.escape(str(model))}' cannot be used: 'str' object cannot .*\nMend its config"
    with pytest.raises(ModelError, match=said):
        load_tokenizer(locate(str(model)))
    with pytest.raises(ModelError, match=said):
        load_config(locate(str(model)))


@pytest.mark.parametrize("content", [b"{", b"[1]", b'"text"', b"\xff\xfe\x00", b"", b"{}"])
def test_a_configuration_that_is_none(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    assert "configuration" in error_of(model)


def test_a_skeleton_has_the_names_and_no_values(bert: Path) -> None:
    config = load_config(locate(str(bert)), num_labels=3)
    bones = skeleton(config, "model")
    assert isinstance(bones, BertForSequenceClassification)
    loaded, _ = load_classifier(str(bert), num_labels=3)
    shapes = {name: parameter.shape for name, parameter in loaded.named_parameters()}
    assert {name: parameter.shape for name, parameter in bones.named_parameters()} == shapes
    assert {parameter.device.type for parameter in bones.parameters()} == {"meta"}
    assert config.num_labels == 3


def test_a_skeleton_of_a_configuration_that_builds_nothing() -> None:
    config = tiny.bert_config(hidden_act="nosuch")
    with pytest.raises(
        ModelError, match=r"configuration of 'name' does not build a BertForSequenceClassification: Key"
    ):
        skeleton(config, "name")


def test_the_class_is_the_one_of_transformers() -> None:
    assert classifier_class(tiny.bert_config(), "name") is BertForSequenceClassification


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda model: (model / "tokenizer.json").unlink(), "has no tokenizer that can be read"),
        (lambda model: (model / "tokenizer.json").write_text("{", encoding="utf-8"), "has no tokenizer"),
        (lambda model: (model / "tokenizer_config.json").write_text("{", encoding="utf-8"), "has no tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_read(model: Path, change: Any, phrase: str) -> None:
    change(model)
    text = error_of(model)
    assert phrase in text
    assert "Copy tokenizer.json and tokenizer_config.json beside the weights." in text


def test_a_tokenizer_of_another_model(bert: Path) -> None:
    loaded, _ = load_classifier(str(bert))
    refuse_strange_tokens(loaded, Dataset.from_dict({"input_ids": [[0, 1], [159]]}), "name")
    with pytest.raises(
        ModelError, match=r"tokenizer of 'name' gives the token id 160, but the model has 160 embeddings"
    ):
        refuse_strange_tokens(loaded, Dataset.from_dict({"input_ids": [[0, 160], [3]]}), "name")


# Code that comes with a model


def bring_code(model: Path, marker: Path) -> None:
    (model / "own.py").write_text(
        f"""
from pathlib import Path
Path({str(marker)!r}).touch()
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
""",
        encoding="utf-8",
    )
    configure(
        model,
        model_type="own",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"},
    )


def test_code_that_comes_with_a_model_is_never_run_unasked(model: Path, tmp_path: Path) -> None:
    bring_code(model, tmp_path / "marker")
    text = error_of(model)
    assert "brings model code of its own, which is never run unasked" in text
    assert "--trust-remote-code" in text
    assert not (tmp_path / "marker").exists()


def test_nor_is_that_of_a_tokenizer(model: Path, tmp_path: Path) -> None:
    bring_code(model, tmp_path / "marker")
    configure(model, model_type="bert")
    configure(model, "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]})
    load_tokenizer(locate(str(model)))
    load_classifier(str(model))  # a type that transformers knows needs no code of the model
    assert not (tmp_path / "marker").exists()


def test_it_is_run_when_asked_for_by_name(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    bring_code(model, tmp_path / "marker")
    loaded, _ = load_classifier(str(model), trust_remote_code=True)
    assert type(loaded).__name__ == "OwnModel"
    assert (tmp_path / "marker").exists()


# Names of the hub


def test_a_hub_name_without_a_network() -> None:
    text = error_of("no-such-org/no-such-model")
    assert "'no-such-org/no-such-model' is no folder here, is not in the hub's cache" in text
    with pytest.raises(ModelError, match="has no tokenizer that can be read"):
        load_tokenizer(locate("no-such-org/no-such-model"))


def test_a_hub_that_knows_no_such_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("org/model is not a valid model identifier\nlisted on the hub")

    monkeypatch.setattr("frostline.checkpoints.skeleton.hub_in_reach", lambda: True)
    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # so that it is not asked for the file
    text = error_of("org/model")
    assert "The hub gives no model 'org/model': org/model is not a valid model identifier" in text
    assert "hf auth login" in text


# Padding, and how many tokens a model takes


def test_a_decoder_without_a_padding_token_gets_one(gpt2: Path) -> None:
    loaded, tokenizer = load_classifier(str(gpt2))
    assert loaded.config.pad_token_id == tokenizer.pad_token_id == 0
    batch = tokenizer(["a good film", "bad"], padding=True, return_tensors="pt")
    alone = tokenizer(["bad"], return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(loaded(**batch).logits[1], loaded(**alone).logits[0], atol=1e-6)


def test_a_tokenizer_with_nothing_to_pad_with(gpt2: Path, tmp_path: Path) -> None:
    folder = tiny.copy_of(gpt2, tmp_path / "model")
    configure(folder, "tokenizer_config.json", bos_token=None, eos_token=None, unk_token=None, pad_token=None)
    assert "has no padding token, and none that could serve as one" in error_of(folder)


@pytest.mark.parametrize(
    ("kind", "changes", "limit"),
    [
        ("bert", {"max_position_embeddings": 512}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("xlm-roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("electra", {"max_position_embeddings": 128, "embedding_size": 16}, 128),
        ("distilbert", {"max_position_embeddings": 100, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}, 100),
        ("gpt2", {"n_positions": 256, "n_embd": 16, "n_layer": 1, "n_head": 2}, 256),
        ("t5", {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}, None),
    ],
)
def test_how_many_tokens_a_model_takes(kind: str, changes: dict[str, Any], limit: int | None) -> None:
    usual = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    common: dict[str, Any] = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    model = built(kind, **common | (usual if "n_embd" not in changes and "dim" not in changes else {}) | changes)
    model.config.pad_token_id = model.config.pad_token_id or 0
    assert position_limit(model) == limit
    if limit is None:
        return
    ids = torch.full((1, limit), 7)
    with torch.no_grad():
        assert model(input_ids=ids).logits.shape == (1, 2)
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            model(input_ids=torch.full((1, limit + 1), 7))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[" * 100_000, "nested too deeply"), ('{"model_type": "\\ud800"}', "half a character")],
)
def test_a_configuration_that_is_hostile(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=reason):
        load_config(locate(str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and at most 2,000 can be built"),
        ({"num_labels": 10**9}, "num_labels is 1000000000, and at most 1,000,000 can be built"),
        ({"text_config": {"n_layer": 10**12}}, "n_layer is 1000000000000"),
        ({"depths": [2, 10**9]}, "depths is 1000000000"),
        ({"num_local_experts": 10**9}, "num_local_experts is 1000000000"),
        ({"max_position_embeddings": 10**15}, "max_position_embeddings is 1000000000000000"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
    ],
)
def test_a_configuration_that_would_be_built_for_ever(model: Path, changes: dict[str, Any], phrase: str) -> None:
    configure(model, **changes)
    assert f"The configuration in '{model}' cannot be used: {phrase}" in error_of(model)


def test_labels_asked_for_without_end(model: Path) -> None:
    with pytest.raises(ModelError, match="num_labels is 99999999999999, and at most 1,000,000 can be built"):
        load_config(locate(model), num_labels=99999999999999)


def test_a_configuration_of_the_hub_that_would_be_built_for_ever(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(model, num_hidden_layers=10**9)
    cached = tmp_path / "hub" / "models--somebody--endless"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    shutil.copytree(model, cached / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="num_hidden_layers is 1000000000, and at most 2,000 can be built"):
        load_config(Source("somebody/endless", None))


def test_names_of_labels_are_no_numbers_of_layers(model: Path) -> None:
    names = {"num_layers": 10**9, "depth": 3}
    assert load_config(locate(model), label2id=names).label2id == names


@pytest.mark.parametrize("kind", ["pipe", "endless", "sparse"])
def test_a_tokenizer_without_an_end(model: Path, kind: str) -> None:
    file = model / "tokenizer.json"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "sparse":
        with file.open("wb") as stream:
            stream.truncate(1 << 40)
    else:
        file.symlink_to("/dev/zero")
    assert "tokenizer" in error_of(model)


def test_a_delta_is_loaded_with_its_base(bert: Path, tmp_path: Path) -> None:
    """The tokenizer too, which the delta leaves to the base where it is the same."""
    torch.manual_seed(1)
    tuned, tokenizer = load_classifier(str(bert), num_labels=3)
    with torch.no_grad():
        tuned.get_parameter("classifier.bias").add_(1)
    tuned.save_pretrained(tmp_path / "tuned")
    for file in bert.glob("tokenizer*"):
        (tmp_path / "tuned" / file.name).write_bytes(file.read_bytes())
    delta = tmp_path / "delta"
    fl.save_delta(bert, tmp_path / "tuned", delta)
    assert not list(delta.glob("tokenizer*"))
    loaded, own = load_classifier(str(delta))
    assert loaded.name_or_path == str(delta)
    assert own("ein schöner Film")["input_ids"] == tokenizer("ein schöner Film")["input_ids"]
    for name, value in tuned.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert fl.fingerprint(delta) == fl.fingerprint(tmp_path / "tuned")
    other, _ = load_classifier(str(delta), num_labels=5)  # to train on from there
    assert other.get_parameter("classifier.weight").shape == (5, 16)
    assert torch.equal(*(model.get_parameter("bert.pooler.dense.weight") for model in (other, tuned)))
