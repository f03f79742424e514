"""Runs that train adapters: what they leave loads as PEFT's own users load it, and is proven."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import frostline as fl
from frostline.errors import ModelError, OutputError, PlanError, SelectorError, SettingsError
from frostline.plan.plan import Plan
from frostline.runs.inference import Classifier, examples_of
from frostline.runs.train import run_training
from frostline.runs.train_settings import TrainSettings
from tests.thinning import slow
from tests.training import tiny
from tests.training.test_resume import AtStep

if TYPE_CHECKING:
    from pathlib import Path

    from frostline.runs.train_result import TrainResult

# PEFT asks for what transformers has renamed; our own code keeps that quiet.
plain_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TEXTS = ["a good film", "这部电影不好看", "ein übler Film"]
WAYS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora": "layers[1]"},
    "DoRA": {"dora": "layers[-1:]", "rank": 2, "alpha": 3.0, "targets": ("key", "output.dense")},
}


def settings(folder: Path, model: Path, **changes: Any) -> TrainSettings:
    file = folder / "easy.csv"
    if not file.exists():
        tiny.write_csv(file, tiny.easy_rows(24))
    values: dict[str, Any] = {"epochs": 2.0, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"}
    values |= {"eval_data": str(file), "store": "memory"}
    return TrainSettings(model=str(model), data=str(file), **values | changes)


def peft_file(folder: Path, config: peft.PeftConfig) -> str:
    config.save_pretrained(str(folder))
    return str(folder / "adapter_config.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module", params=WAYS)
def learned(request: pytest.FixtureRequest, place: Path, quick_bert: Path) -> TrainResult:
    return run_training(settings(place, quick_bert, **WAYS[request.param]), place / request.param)


def as_peft_loads(folder: Path, base: Path) -> torch.Tensor:
    """Logits as anyone would compute them who has never heard of Frostline."""
    config = AutoConfig.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(base, config=config)
    model = peft.PeftModel.from_pretrained(model, str(folder))
    return logits(model, AutoTokenizer.from_pretrained(folder))


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    return given


# What is left


@plain_peft
def test_it_loads_without_frostline_and_says_the_same(learned: TrainResult, quick_bert: Path) -> None:
    again = Classifier(str(learned.folder))
    assert torch.equal(as_peft_loads(learned.folder, quick_bert), logits(again.model, again.tokenizer))
    assert again.model.config.id2label == {0: "bad", 1: "good"}
    told = again.predict(examples_of(["good good good film", "bad bad bad film"])).labels
    assert told == (["good", "bad"] if learned.metrics["accuracy"] > 0.9 else told)


def test_the_head_travels_with_the_adapters(learned: TrainResult) -> None:
    stored = load_file(learned.folder / "adapter_model.safetensors")
    assert {"base_model.model.classifier.weight", "base_model.model.classifier.bias"} <= stored.keys()
    assert all(".layer.1." in name or ".classifier." in name for name in stored)
    config = json.loads((learned.folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["classifier"]
    assert config["base_model_name_or_path"] == learned.start.settings.model
    assert not (learned.folder / "model.safetensors").exists()


def test_the_proof_covers_base_adapters_and_head(learned: TrainResult) -> None:
    proof = learned.proof
    assert proof.ok
    moved = {row.name for row in proof.tensors if row.moved}
    assert moved == {row.name for row in proof.tensors if not row.frozen}
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    assert Plan.load(learned.folder) == Plan("all, ~adapters")
    found = fl.verify_run(learned.folder)
    assert found.ok, str(found)
    assert found.hashed == len(proof.tensors) - 2  # the head that the adapters' one replaces is drawn anew
    assert found.from_base == sum(row.frozen for row in proof.tensors) - 2


def test_frozen_layers_are_replayed(learned: TrainResult) -> None:
    assert str(learned.engine).startswith("Engine: replay from layer 1, ")


def test_tampering_shows(learned: TrainResult, tmp_path: Path, bert: Path) -> None:
    folder = tiny.copy_of(learned.folder, tmp_path / "run")
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = tensors[name] + 1
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    files = {each.file for each in fl.verify_run(folder).disagreements}
    assert files == {"weights", "adapter_model.safetensors"}
    other = fl.verify_run(learned.folder, bert)
    assert {each.file for each in other.disagreements} == {"base"}


def test_what_the_card_and_the_metrics_say(learned: TrainResult) -> None:
    card = (learned.folder / "README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in card
    assert learned.start.adapters.partition(" in ")[0] in card
    assert "model = PeftModel.from_pretrained(base, folder)" in card
    noted = json.loads((learned.folder / "metrics.json").read_text(encoding="utf-8"))["settings"]
    chosen = learned.start.settings
    assert (noted["lora"], noted["dora"], noted["rank"]) == (chosen.lora, chosen.dora, chosen.rank)


def test_it_is_inspected_from_its_headers(learned: TrainResult) -> None:
    found = fl.inspect(learned.folder)
    assert found.trainable_parameters == learned.start.inspection.trainable_parameters
    assert {row.origin for row in found.rows} == {"pretrained"}
    assert found.origin.source == learned.start.settings.model


# Where they go


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": "layers[:]"}, "LoRA of rank 8, alpha 16 in 4 modules of layer 0, layer 1"),
        ({"lora": "layers[0]", "rank": 4}, "LoRA of rank 4, alpha 8 in 2 modules of layer 0"),
        (
            {"lora": "re:.*attention.*", "targets": ("query",)},
            "LoRA of rank 8, alpha 16 in 2 modules of layer 0, layer 1",
        ),
        ({"dora": "pooler", "targets": ("dense",)}, "DoRA of rank 8, alpha 16 in 1 module of pooler"),
    ],
)
def test_a_selector_says_where(tmp_path: Path, bert: Path, changes: Any, said: str) -> None:
    result = run_training(settings(tmp_path, bert, epochs=0.5, **changes), tmp_path / "out")
    assert result.start.adapters == f"{said}; beside them train 'classifier'"
    assert result.proof.ok
    assert fl.verify_run(result.folder).ok


def test_a_decoder_with_turned_weights(tmp_path: Path, gpt2: Path) -> None:
    result = run_training(settings(tmp_path, gpt2, epochs=0.5, lora="layers[1]"), tmp_path / "out")
    assert result.start.adapters.endswith("in 1 module of layer 1; beside them train 'score'")
    assert fl.verify_run(result.folder).ok


def test_what_the_checkpoint_lacks_trains_too(tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    base: Any = BertForMaskedLM(tiny.bert_config())  # type: ignore[arg-type]
    base.save_pretrained(tmp_path / "base")  # without a pooler
    tiny.wordpiece().save_pretrained(tmp_path / "base")
    result = run_training(settings(tmp_path, tmp_path / "base", epochs=0.5, lora="layers[1]"), tmp_path / "out")
    assert result.start.adapters.endswith("beside them train 'bert.pooler', 'classifier'")
    assert fl.verify_run(result.folder).ok
    assert Classifier(str(result.folder)).predict(examples_of(TEXTS)).labels


# Other adapters, from a file


@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]),
        peft.LoraConfig(target_modules=r".*layer\.1.*query", bias="all", modules_to_save=["pooler"]),
        peft.PromptTuningConfig(num_virtual_tokens=2),
    ],
    ids=["IA3", "LoRA with biases", "a prompt"],
)
def test_any_configuration_of_peft(tmp_path: Path, bert: Path, config: peft.PeftConfig) -> None:
    result = run_training(settings(tmp_path, bert, peft=peft_file(tmp_path, config)), tmp_path / "out")
    assert result.proof.ok
    found = fl.verify_run(result.folder)
    assert found.ok, str(found)
    assert Classifier(str(result.folder)).predict(examples_of(TEXTS)).labels


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"task_type": "CAUSAL_LM"}, "is for the task 'CAUSAL_LM'; train takes 'SEQ_CLS'"),
        ({"rnak": 4}, "has 'rnak', which this PEFT does not know for LORA"),
        ({"peft_type": "NOSUCH"}, "PEFT cannot use the configuration"),
        ({"init_lora_weights": "pissa"}, "changes the weights of the base before training"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, bert: Path, values: Any, said: str) -> None:
    file = tmp_path / "adapter.json"
    file.write_text(json.dumps({"peft_type": "LORA", "target_modules": ["query"], "r": 2} | values), encoding="utf-8")
    with pytest.raises(ModelError, match=said):
        run_training(settings(tmp_path, bert, peft=str(file)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_modules_that_are_not_there(tmp_path: Path, bert: Path) -> None:
    file = peft_file(tmp_path, peft.LoraConfig(target_modules=["nosuch"]))
    with pytest.raises(PlanError, match="PEFT cannot put the adapters of --peft on BertForSequenceClassification: "):
        run_training(settings(tmp_path, bert, peft=file), tmp_path / "out")


# Merging


@pytest.mark.parametrize("way", ["DoRA", *slow(*(way for way in WAYS if way != "DoRA"), "IA3")])
def test_a_merged_run_is_a_plain_model(tmp_path: Path, quick_bert: Path, way: str) -> None:
    ia3 = peft.IA3Config(target_modules=["output.dense"], feedforward_modules=["output.dense"])
    changes = {"peft": peft_file(tmp_path, ia3)} if way == "IA3" else WAYS[way]
    apart = run_training(settings(tmp_path, quick_bert, **changes), tmp_path / "apart")
    result = run_training(settings(tmp_path, quick_bert, merge=True, **changes), tmp_path / "merged")
    assert not (result.folder / "adapter_config.json").exists()
    model = AutoModelForSequenceClassification.from_pretrained(result.folder)
    both = Classifier(str(apart.folder))
    torch.testing.assert_close(logits(model, both.tokenizer), logits(both.model, both.tokenizer), atol=1e-5, rtol=0)
    assert result.metrics == apart.metrics
    found = fl.verify_run(result.folder)
    assert found.ok, str(found)
    free = {row.name for row in result.proof.tensors if not row.frozen}
    assert free == {row.name for row in result.proof.tensors if row.moved}
    assert 2 < len(free) < 8
    assert "classifier.weight" in free


def test_prompts_cannot_be_merged(tmp_path: Path, bert: Path) -> None:
    file = peft_file(tmp_path, peft.PromptTuningConfig(num_virtual_tokens=2))
    with pytest.raises(SettingsError, match="cannot merge adapters of the kind PROMPT_TUNING"):
        run_training(settings(tmp_path, bert, peft=file, merge=True), tmp_path / "out")


# Going on


@pytest.mark.parametrize("step", [2, *slow(4)])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    tmp_path: Path, place: Path, quick_bert: Path, step: int
) -> None:
    wanted = settings(place, quick_bert, lora="layers[1]")
    whole = run_training(wanted, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(step)])
    resumed = run_training(wanted, tmp_path / "out", resume=True)
    one, other = (load_file(result.folder / "adapter_model.safetensors") for result in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.metrics == whole.metrics
    assert resumed.proof.tensors == whole.proof.tensors


def test_another_file_is_no_way_to_go_on(tmp_path: Path, quick_bert: Path) -> None:
    file = peft_file(tmp_path, peft.LoraConfig(target_modules=["query"]))
    wanted = settings(tmp_path, quick_bert, peft=file)
    with pytest.raises(KeyboardInterrupt):
        run_training(wanted, tmp_path / "out", callbacks=[AtStep(2)])
    peft_file(tmp_path, peft.LoraConfig(target_modules=["value"]))
    with pytest.raises(OutputError, match="had another configuration in the file of --peft"):
        run_training(wanted, tmp_path / "out", resume=True)
    with pytest.raises(OutputError, match=r"had no --lora; this one has --lora 'layers\[1\]'"):
        run_training(replace(wanted, peft=None, lora="layers[1]"), tmp_path / "out", resume=True)


# What cannot be


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": "head"}, "'head' means no linear layer"),
        ({"lora": "embeddings"}, "'embeddings' means no linear layer"),
        (
            {"lora": "layers[0]", "targets": ("query", "q")},
            "--targets names 'q', .*\nThere are: attention.self.query, ",
        ),
        ({"lora": "pooler"}, "is not known.\nName them by --targets: bert.pooler.dense"),
    ],
)
def test_what_names_nothing(tmp_path: Path, bert: Path, changes: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        run_training(settings(tmp_path, bert, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_layers_that_are_not_there(tmp_path: Path, bert: Path) -> None:
    with pytest.raises(SelectorError, match="its layers are 0 to 1"):
        run_training(settings(tmp_path, bert, lora="layers[7]"), tmp_path / "out")


def test_adapters_are_no_model_to_train(learned: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds adapters, not a whole model to train"):
        run_training(settings(tmp_path, learned.folder, lora="layers[1]"), tmp_path / "out")
    with pytest.raises(ModelError, match="holds adapters, not a whole model"):
        fl.diff(learned.folder, learned.folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, "It is not known what the adapters in .* belong to"),
        ("/nosuch/base", "There is no folder '/nosuch/base'.\nThat is the base_model_name_or_path in "),
        (".", "a relative path.\nWrite an absolute one"),
    ],
)
def test_a_base_that_is_not_there(
    learned: TrainResult, quick_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, said: str
) -> None:
    folder = tiny.copy_of(learned.folder, tmp_path / "run")
    file = folder / "adapter_config.json"
    values = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
    file.write_text(json.dumps(values), encoding="utf-8")
    monkeypatch.chdir(quick_bert)
    with pytest.raises(ModelError, match=said):
        Classifier(str(folder))


def test_adapters_of_another_model(learned: TrainResult, tmp_path: Path) -> None:
    folder = tiny.copy_of(learned.folder, tmp_path / "run")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensors[name] for name in list(tensors)[1:]}, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="do not fit their configuration"):
        Classifier(str(folder))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks adapter_model"):
        Classifier(str(folder))
