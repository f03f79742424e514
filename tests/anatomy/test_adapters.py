"""Models that PEFT wrapped are read as they are: adapters in the unit that they sit in."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertModel, GPT2LMHeadModel

import frostline as fl
from frostline.anatomy.origin import origin_of
from frostline.checkpoints.quiet_loading import quiet
from tests.anatomy.test_modelmap import assert_complete, units
from tests.models import batch, names_of, tiny, tiny_config, trainable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

_TASK: Any = {"task_type": "SEQ_CLS"}
_UNITS = units("embeddings", "layers 2", "pooler", "head")

# Per method: its settings, its name, and per unit what the names of its adapters contain.
METHODS: dict[str, tuple[Callable[[], peft.PeftConfig], str, dict[str, set[str]]]] = {
    "LoRA": (
        lambda: peft.LoraConfig(r=2, **_TASK),
        "LORA",
        {"layer 0": {"lora_A", "lora_B"}, "layer 1": {"lora_A", "lora_B"}, "head": {"modules_to_save"}},
    ),
    "IA3": (
        lambda: peft.IA3Config(**_TASK),
        "IA3",
        {"layer 0": {"ia3_l"}, "layer 1": {"ia3_l"}, "head": {"modules_to_save"}},
    ),
    "prompt tuning": (
        lambda: peft.PromptTuningConfig(num_virtual_tokens=3, **_TASK),
        "PROMPT_TUNING",
        {"embeddings": {"prompt_encoder"}, "head": {"modules_to_save"}},
    ),
    "prefix tuning": (
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, **_TASK),
        "PREFIX_TUNING",
        {"embeddings": {"prompt_encoder"}, "head": {"modules_to_save"}},
    ),
    "LayerNorm tuning": (
        lambda: peft.LNTuningConfig(target_modules=["LayerNorm"], **_TASK),
        "LN_TUNING",
        {
            "embeddings": {"ln_tuning_layers"},
            "layer 0": {"ln_tuning_layers"},
            "layer 1": {"ln_tuning_layers"},
            "head": {"modules_to_save"},
        },
    ),
    "modules to save": (
        lambda: peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier", "pooler.dense"]),
        "LORA",
        {
            "layer 0": {"lora_A", "lora_B"},
            "layer 1": {"lora_A", "lora_B"},
            "pooler": {"modules_to_save"},
            "head": {"modules_to_save"},
        },
    ),
}


def wrapped(model: nn.Module, config: peft.PeftConfig) -> peft.PeftModel:
    with warnings.catch_warnings():
        # PEFT still asks transformers by an older name of the attribute.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        # It asks any layer for its sizes, which a normalisation has none of.
        warnings.filterwarnings("ignore", "Unsupported layer type .*LayerNorm")
        return cast("peft.PeftModel", peft.get_peft_model(cast("Any", model), config))


def with_lora(**settings: Any) -> peft.PeftModel:
    return wrapped(tiny("bert"), peft.LoraConfig(r=2, **(_TASK | settings)))


def words_of(names: set[str], anatomy: fl.ModelMap) -> dict[str, set[str]]:
    """Per unit, the words by which the names of adapters are told."""
    known = ("lora_A", "lora_B", "ia3_l", "prompt_encoder", "modules_to_save", "ln_tuning_layers")
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(anatomy.unit_of[name].name, set()).update(word for word in known if word in name.split("."))
    return found


@pytest.mark.parametrize("method", METHODS)
class TestMethods:
    def test_adapters_are_in_the_unit_that_they_sit_in(self, method: str) -> None:
        make, kind, expected = METHODS[method]
        model = wrapped(tiny("bert"), make())
        anatomy = assert_complete(model)
        assert [found.name for found in anatomy.units] == _UNITS
        assert anatomy.model_class == "BertForSequenceClassification"
        assert words_of(set(anatomy.kinds["adapters"]), anatomy) == expected
        assert anatomy.notes == (
            f"Looked through {type(model).__name__} to BertForSequenceClassification.",
            f"Adapter 'default' ({kind}): active.",
        )

    def test_they_are_selected_by_their_kind(self, method: str) -> None:
        model = wrapped(tiny("bert"), METHODS[method][0]())
        adapters = set(fl.select(model, "adapters").names)
        assert adapters == trainable(model) != set()
        fl.train_only(model, "adapters")
        assert trainable(model) == adapters
        assert "adapters" in fl.inspect(model).verdict

    def test_a_step_moves_adapters_alone(self, method: str) -> None:
        model = wrapped(tiny("bert"), METHODS[method][0]())
        before = fl.fingerprint(model)
        frozen = fl.train_only(model, "adapters")
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.01)
        try:
            loss = model(input_ids=batch(), labels=torch.tensor([0, 1, 1, 0])).loss
        except ValueError as error:
            if "does not support past key values" not in str(error):
                raise
            pytest.skip("this PEFT tunes no prefix of this version's BERT")
        loss.backward()
        optimizer.step()
        proof = fl.verify(before, model, frozen.plan)
        assert proof.ok
        moved = {tensor.name for tensor in proof.tensors if tensor.moved}
        # A is multiplied by a B that still is 0, so it gets a gradient of 0.
        assert {name for name in trainable(model) if "lora_A" not in name} <= moved <= trainable(model)


class TestNames:
    def test_without_the_wrapper_s_part(self) -> None:
        model = with_lora()
        inside = names_of(model, "base_model.model.bert.encoder.layer.1.")
        for selector in (
            "bert.encoder.layer.1",
            "base_model.model.bert.encoder.layer.1",
            "bert.encoder.layer.1.*",
            r"re:bert\.encoder\.layer\.1\..*",
            "layers[1]",
        ):
            assert set(fl.select(model, selector).names) == inside
        assert len(inside) == 16 + 4

    def test_layers_but_for_their_adapters(self) -> None:
        model = with_lora()
        fl.freeze(model, "backbone, ~adapters")
        assert trainable(model) >= set(fl.select(model, "adapters").names)
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert frozen >= names_of(model, "base_model.model.bert.embeddings.")
        assert not any("lora" in name for name in frozen)


class TestStates:
    def test_two_adapters(self) -> None:
        model = with_lora()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
            model.add_adapter("second", peft.LoraConfig(r=3, **_TASK))
        anatomy = assert_complete(model)
        assert anatomy.notes[1:] == (
            "Adapter 'default' (LORA): active.",
            "Adapter 'second' (LORA): not active.",
        )
        names = anatomy.kinds["adapters"]
        assert {name.split(".")[-2] for name in names if "lora" in name} == {"default", "second"}
        assert {anatomy.unit_of[name].name for name in names} == {"layer 0", "layer 1", "head"}
        assert len(fl.select(model, "re:.*lora_.*second.*").names) == 8
        model.set_adapter("second")
        assert fl.ModelMap.of(model).notes[1:] == (
            "Adapter 'default' (LORA): not active.",
            "Adapter 'second' (LORA): active.",
        )

    def test_merged(self) -> None:
        model = with_lora()
        tuner = cast("Any", model.base_model)
        tuner.merge_adapter()
        assert fl.ModelMap.of(model).notes[1] == "Adapter 'default' (LORA): merged into the weights."
        tuner.unmerge_adapter()
        assert fl.ModelMap.of(model).notes[1] == "Adapter 'default' (LORA): active."

    # PEFT cannot disable a prompt before a model that generates nothing.
    @pytest.mark.parametrize(
        "method", [method for method in METHODS if method not in {"prompt tuning", "prefix tuning"}]
    )
    def test_disabled(self, method: str) -> None:
        make, kind, _ = METHODS[method]
        model = wrapped(tiny("bert"), make())
        with model.disable_adapter():
            assert fl.ModelMap.of(model).notes[1] == f"Adapter 'default' ({kind}): disabled."
            assert f"Adapter 'default' ({kind}): disabled." in str(fl.inspect(model))
        assert fl.ModelMap.of(model).notes[1] == f"Adapter 'default' ({kind}): active."

    def test_a_disabled_prompt(self) -> None:
        config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
        model = wrapped(GPT2LMHeadModel(tiny_config("gpt2")), config)
        with model.disable_adapter():
            assert fl.ModelMap.of(model).notes[1] == "Adapter 'default' (PROMPT_TUNING): disabled."
        assert fl.ModelMap.of(model).notes[1] == "Adapter 'default' (PROMPT_TUNING): active."

    def test_merged_and_unloaded(self) -> None:
        plain = with_lora().merge_and_unload()
        anatomy = assert_complete(plain)
        assert anatomy.notes == ()
        assert anatomy.kinds["adapters"] == frozenset()


class TestOrigin:
    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        BertModel(tiny_config("bert")).save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    def load(self, base: Path) -> nn.Module:
        with quiet():
            return cast("nn.Module", AutoModelForSequenceClassification.from_pretrained(base))

    @pytest.mark.parametrize("method", METHODS)
    def test_of_base_weights_and_adapters(self, method: str, base: Path) -> None:
        plain = self.load(base)
        known = origin_of(plain)
        assert known.new == {"classifier.weight", "classifier.bias"}
        model = wrapped(plain, METHODS[method][0]())
        origin = origin_of(model)
        assert origin.source == str(base)
        words: dict[str, set[str]] = {"pretrained": set(), "new": set(), "unknown": set()}
        for name, _ in model.named_parameters():
            words[origin.of(name)].add(name)
        assert {name.rpartition("classifier.")[0] for name in words["new"]} <= {"base_model.model.", "base_model."}
        assert all(".classifier." in name for name in words["new"])
        assert len(words["pretrained"]) >= len(known_names(base))
        added = {name for name in fl.ModelMap.of(model).kinds["adapters"] if "modules_to_save" not in name}
        assert words["unknown"] == added

    def test_it_is_shown(self, base: Path) -> None:
        rows = {
            row.name: row.origin for row in fl.inspect(wrapped(self.load(base), peft.LoraConfig(r=2, **_TASK))).rows
        }
        assert rows == {"head": "new", "pooler": "pretrained", "layers 0-1": "mixed", "embeddings": "pretrained"}


def known_names(base: Path) -> set[str]:
    with quiet():
        return {name for name, _ in BertModel.from_pretrained(base).named_parameters()}


def test_freezing_keeps_the_plan_beside_the_saved_adapter(tmp_path: Path) -> None:
    model = with_lora()
    fl.freeze(model, "layers[:1]")
    with warnings.catch_warnings():
        # PEFT would look on the hub whether the base model's table of words is larger there.
        warnings.filterwarnings("ignore", "Could not find a config file")
        model.save_pretrained(str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} >= {"adapter_model.safetensors", "plan.json"}
    plan = fl.Plan.load(tmp_path)
    other = with_lora()
    fl.freeze(other, plan)
    assert trainable(other) == trainable(model)
