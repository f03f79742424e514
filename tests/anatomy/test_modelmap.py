"""Units of many architectures: complete, in depth order, named as people name them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from transformers import BertForMaskedLM, BertModel, LlamaModel

import frostline as fl
from frostline.plan.describe import describe
from tests.models import SIZES, Plain, names_of, tiny, tiny_config

if TYPE_CHECKING:
    from frostline.anatomy.modelmap import Unit


def units(*names: str) -> list[str]:
    """Names of units; ``"layers 2"`` stands for two numbered ones."""
    found: list[str] = []
    for name in names:
        stack, word, count = name.rpartition("layers ")
        found += [f"{stack}layer {number}" for number in range(int(count))] if word else [name]
    return found


EXPECTED = {
    "bert": units("embeddings", "layers 2", "pooler", "head"),
    "roberta": units("embeddings", "layers 2", "head"),
    "distilbert": units("embeddings", "layers 2", "head"),
    "electra": units("embeddings", "layers 2", "head"),
    "deberta-v2": units("embeddings", "layers 2", "head"),
    "gpt2": units("embeddings", "layers 2", "norm", "head"),
    "llama": units("embeddings", "layers 2", "norm", "head"),
    "t5": units("embeddings", "encoder layers 2", "encoder norm", "decoder layers 3", "decoder norm", "head"),
    "bart": units(
        "embeddings", "encoder embeddings", "encoder layers 2", "decoder embeddings", "decoder layers 3", "head"
    ),
    "xlm": units("embeddings", "layers 2", "head"),
    "funnel": units("embeddings", "layers 3", "head"),
    "bloom": units("embeddings", "layers 2", "norm", "head"),
    "albert": units("embeddings", "layers 1", "pooler", "head"),
}

# Where the tensors of a unit start, in models whose paths tell it.
PREFIXES = {
    "bert": {"embeddings": ["bert.embeddings."], "layer 1": ["bert.encoder.layer.1."], "head": ["classifier."]},
    "roberta": {"embeddings": ["roberta.embeddings."], "head": ["classifier."]},
    "distilbert": {"layer 0": ["distilbert.transformer.layer.0."], "head": ["pre_classifier.", "classifier."]},
    "electra": {"embeddings": ["electra.embeddings.", "electra.embeddings_project."], "head": ["classifier."]},
    "deberta-v2": {
        "embeddings": ["deberta.embeddings.", "deberta.encoder.rel_embeddings.", "deberta.encoder.LayerNorm."],
        "head": ["pooler.", "classifier."],
    },
    "gpt2": {"embeddings": ["transformer.wte.", "transformer.wpe."], "norm": ["transformer.ln_f."], "head": ["score."]},
    "llama": {"embeddings": ["model.embed_tokens."], "norm": ["model.norm."], "head": ["score."]},
    "t5": {
        "embeddings": ["transformer.shared."],
        "decoder layer 2": ["transformer.decoder.block.2."],
        "encoder norm": ["transformer.encoder.final_layer_norm."],
        "decoder norm": ["transformer.decoder.final_layer_norm."],
        "head": ["classification_head."],
    },
    "bart": {
        "embeddings": ["model.shared."],
        "encoder embeddings": ["model.encoder.embed_positions.", "model.encoder.layernorm_embedding."],
        "encoder layer 0": ["model.encoder.layers.0."],
        "head": ["classification_head."],
    },
    "xlm": {
        "layer 1": [
            "transformer.attentions.1.",
            "transformer.layer_norm1.1.",
            "transformer.ffns.1.",
            "transformer.layer_norm2.1.",
        ],
        "head": ["sequence_summary."],
    },
    "funnel": {
        "layer 0": ["funnel.encoder.blocks.0.0."],
        "layer 1": ["funnel.encoder.blocks.1.0."],
        "layer 2": ["funnel.encoder.blocks.1.1."],
    },
    "bloom": {
        "embeddings": ["transformer.word_embeddings.", "transformer.word_embeddings_layernorm."],
        "norm": ["transformer.ln_f."],
    },
    "albert": {"embeddings": ["albert.embeddings.", "albert.encoder.embedding_hidden_mapping_in."]},
}


def assert_complete(model: nn.Module) -> fl.ModelMap:
    """Every parameter and every buffer is in exactly one unit, and no unit holds anything else."""
    anatomy = fl.ModelMap.of(model)
    parameters = Counter(name for unit in anatomy.units for name in unit.parameter_names)
    buffers = Counter(name for unit in anatomy.units for name in unit.buffer_names)
    assert parameters == Counter(name for name, _ in model.named_parameters())
    assert buffers == Counter(name for name, _ in model.named_buffers())
    assert len({unit.name for unit in anatomy.units}) == len(anatomy.units)
    return anatomy


def unit(anatomy: fl.ModelMap, name: str) -> Unit:
    (found,) = (unit for unit in anatomy.units if unit.name == name)
    return found


@pytest.mark.parametrize("kind", SIZES)
class TestArchitectures:
    def test_complete_and_in_depth_order(self, kind: str) -> None:
        anatomy = assert_complete(tiny(kind, meta=True))
        assert [unit.name for unit in anatomy.units] == EXPECTED[kind]
        assert all(unit.parameter_names for unit in anatomy.units)

    def test_units_hold_what_their_names_say(self, kind: str) -> None:
        model = tiny(kind, meta=True)
        anatomy = fl.ModelMap.of(model)
        for name, prefixes in PREFIXES[kind].items():
            expected = names_of(model, *prefixes)
            assert expected
            assert set(unit(anatomy, name).parameter_names) == expected

    def test_kind_stack_and_index(self, kind: str) -> None:
        anatomy = fl.ModelMap.of(tiny(kind, meta=True))
        for found in anatomy.units:
            if found.kind == "layer":
                assert f"{found.stack} layer {found.index}".lstrip() == found.name
            else:
                assert found.name.split()[-1] == found.kind
                assert found.index is None

    def test_stacks_are_as_long_as_they_have_layers(self, kind: str) -> None:
        anatomy = fl.ModelMap.of(tiny(kind, meta=True))
        for stack in anatomy.stacks:
            indices = [unit.index for unit in anatomy.units if unit.kind == "layer" and unit.stack == stack.name]
            assert indices == list(range(len(stack)))
        assert sum(map(len, anatomy.stacks)) == sum(unit.kind == "layer" for unit in anatomy.units)

    def test_parameter_names_by_unit(self, kind: str) -> None:
        anatomy = fl.ModelMap.of(tiny(kind, meta=True))
        assert anatomy.parameter_names == tuple(name for unit in anatomy.units for name in unit.parameter_names)
        for found in anatomy.units:
            assert all(anatomy.unit_of[name] is found for name in (*found.parameter_names, *found.buffer_names))


def test_the_stacks_of_an_encoder_decoder() -> None:
    stacks = fl.ModelMap.of(tiny("bart", meta=True)).stacks
    assert [(stack.name, stack.paths, len(stack)) for stack in stacks] == [
        ("encoder", ("model.encoder.layers",), 2),
        ("decoder", ("model.decoder.layers",), 3),
    ]
    assert stacks[1].layers == (
        ("model.decoder.layers.0",),
        ("model.decoder.layers.1",),
        ("model.decoder.layers.2",),
    )


def test_layers_kept_in_parallel_lists() -> None:
    (stack,) = fl.ModelMap.of(tiny("xlm", meta=True)).stacks
    lists = ("attentions", "layer_norm1", "ffns", "layer_norm2")
    assert stack.paths == tuple(f"transformer.{name}" for name in lists)
    assert stack.layers[1] == tuple(f"transformer.{name}.1" for name in lists)


def test_blocks_of_layers_are_one_stack() -> None:
    (stack,) = fl.ModelMap.of(tiny("funnel", meta=True)).stacks
    assert stack.layers == (
        ("funnel.encoder.blocks.0.0",),
        ("funnel.encoder.blocks.1.0",),
        ("funnel.encoder.blocks.1.1",),
    )


def test_the_usual_twelve_layers() -> None:
    anatomy = fl.ModelMap.of(tiny("bert", meta=True, num_hidden_layers=12))
    assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 12", "pooler", "head")
    assert unit(anatomy, "layer 1").parameter_names != unit(anatomy, "layer 10").parameter_names
    assert all(len(found.parameter_names) == 16 for found in anatomy.units if found.kind == "layer")


def test_buffers_are_placed_too() -> None:
    anatomy = fl.ModelMap.of(tiny("bert", meta=True))
    assert set(unit(anatomy, "embeddings").buffer_names) == {
        "bert.embeddings.position_ids",
        "bert.embeddings.token_type_ids",
    }
    llama = fl.ModelMap.of(tiny("llama", meta=True))
    assert "model.rotary_emb.inv_freq" in unit(llama, "embeddings").buffer_names


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        (
            "t5",
            (
                "transformer.shared.weight",
                "transformer.encoder.embed_tokens.weight",
                "transformer.decoder.embed_tokens.weight",
            ),
        ),
        ("bart", ("model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")),
    ],
)
def test_tied_weights(kind: str, group: tuple[str, ...]) -> None:
    anatomy = fl.ModelMap.of(tiny(kind, meta=True))
    assert anatomy.tied == (group,)
    assert {anatomy.unit_of[name].name for name in group} == {"embeddings"}
    assert unit(anatomy, "embeddings").shared
    assert not any(unit.shared for unit in anatomy.units if unit.kind in {"layer", "head"})


def test_a_head_tied_to_the_embeddings() -> None:
    anatomy = assert_complete(BertForMaskedLM(tiny_config("bert")))
    (group,) = (group for group in anatomy.tied if "cls.predictions.decoder.weight" in group)
    assert group[0] == "bert.embeddings.word_embeddings.weight"
    assert anatomy.unit_of["cls.predictions.decoder.weight"].name == "embeddings"
    assert "cls.predictions.transform.dense.weight" in unit(anatomy, "head").parameter_names


def test_no_weights_are_tied() -> None:
    assert fl.ModelMap.of(tiny("bert", meta=True)).tied == ()


def test_a_backbone_by_itself() -> None:
    bert = assert_complete(BertModel(tiny_config("bert")))
    assert [unit.name for unit in bert.units] == units("embeddings", "layers 2", "pooler")
    llama = assert_complete(LlamaModel(tiny_config("llama")))
    assert [unit.name for unit in llama.units] == units("embeddings", "layers 2", "norm")


class TestPlainTorch:
    def test_a_chain_with_embeddings_norm_and_head(self) -> None:
        model = Plain()
        anatomy = assert_complete(model)
        assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 3", "norm", "head")
        assert anatomy.model_class == "Plain"
        assert set(unit(anatomy, "layer 2").parameter_names) == names_of(model, "blocks.2.")
        assert unit(anatomy, "layer 2").buffer_names == (
            "blocks.2.norm.running_mean",
            "blocks.2.norm.running_var",
            "blocks.2.norm.num_batches_tracked",
        )

    def test_no_stack(self) -> None:
        model = nn.Module()
        model.table = nn.Embedding(3, 2)
        model.body = nn.Sequential(nn.Linear(2, 2), nn.Tanh())  # one layer with parameters is no chain
        model.normal = nn.BatchNorm1d(2)
        anatomy = assert_complete(model)
        assert anatomy.stacks == ()
        assert [unit.name for unit in anatomy.units] == ["embeddings", "other"]
        assert unit(anatomy, "other").buffer_names[0] == "normal.running_mean"

    def test_a_sequence_of_different_modules_is_no_stack(self) -> None:
        model = nn.Module()
        model.body = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Bilinear(2, 2, 2))
        assert assert_complete(model).stacks == ()

    @pytest.mark.parametrize("container", [nn.Sequential, nn.ModuleList])
    def test_the_model_itself_is_the_chain(self, container: type[nn.Module]) -> None:
        layers = [nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1)]
        model = nn.Sequential(*layers) if container is nn.Sequential else nn.ModuleList(layers)
        anatomy = assert_complete(model)
        assert [unit.name for unit in anatomy.units] == units("layers 3")
        assert fl.select(model, "layers[-1]").names == ("2.weight", "2.bias")

    def test_a_chain_of_chains_inside_the_model_itself(self) -> None:
        model = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)))
        anatomy = assert_complete(model)
        assert [len(stack) for stack in anatomy.stacks] == [2]

    def test_stacks_that_no_single_word_tells_apart(self) -> None:
        class Tower(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

        class OtherTower(Tower):
            pass

        model = nn.Module()
        model.towers = nn.Sequential(Tower(), OtherTower())
        anatomy = assert_complete(model)
        assert len({stack.name for stack in anatomy.stacks}) == len(anatomy.stacks)
        for found in anatomy.units:
            selector = describe(anatomy, found.parameter_names)
            assert set(fl.select(model, selector).names) == set(found.parameter_names)

    def test_a_module_named_layers_or_head_without_a_stack(self) -> None:
        model = nn.Module()
        model.layers, model.head = nn.Linear(2, 2), nn.Linear(2, 2)
        assert [unit.name for unit in assert_complete(model).units] == ["other"]


class TestOddModels:
    def test_no_tensors(self) -> None:
        assert assert_complete(nn.ReLU()).units == ()

    def test_buffers_only(self) -> None:
        model = nn.BatchNorm1d(3, affine=False)
        assert [unit.name for unit in assert_complete(model).units] == ["other"]

    def test_parameters_at_the_root(self) -> None:
        model = nn.ParameterList([torch.zeros(2), torch.zeros(())])
        (found,) = assert_complete(model).units
        assert (found.name, found.parameter_names) == ("other", ("0", "1"))

    def test_a_parameter_at_the_root_beside_a_stack(self) -> None:
        model = Plain()
        model.scale = nn.Parameter(torch.ones(()))
        assert unit(assert_complete(model), "other").parameter_names == ("scale",)

    def test_a_module_registered_twice(self) -> None:
        model = Plain()
        model.again = model.blocks[0]
        anatomy = assert_complete(model)
        assert "again.linear.weight" in anatomy.unit_of
        assert anatomy.unit_of["again.norm.running_mean"].name == "layer 0"
        assert unit(anatomy, "layer 0").shared
        assert not unit(anatomy, "layer 1").shared

    def test_one_layer_used_several_times(self) -> None:
        layer = nn.Linear(2, 2)
        model = nn.Module()
        model.layers = nn.ModuleList([layer, layer, layer])
        anatomy = assert_complete(model)
        assert anatomy.unit_of["layers.2.weight"].name == "layer 0"

    def test_a_parameter_shared_by_two_layers(self) -> None:
        model = Plain()
        model.blocks[2].linear.weight = model.blocks[0].linear.weight  # type: ignore[union-attr]
        anatomy = assert_complete(model)
        assert anatomy.tied == (("blocks.0.linear.weight", "blocks.2.linear.weight"),)
        assert anatomy.unit_of["blocks.2.linear.weight"].name == "layer 0"

    def test_two_lists_of_the_same_layers(self) -> None:
        layers = [nn.Linear(2, 2) for _ in range(2)]
        model = nn.Module()
        model.left, model.right = nn.Module(), nn.Module()
        model.left.layers, model.right.layers = nn.ModuleList(layers), nn.ModuleList(layers)
        assert [unit.name for unit in assert_complete(model).units] == units("layers 2")

    def test_a_layer_registered_before_its_list(self) -> None:
        model = nn.Module()
        model.first = nn.Linear(2, 2)
        model.layers = nn.ModuleList([model.first, nn.Linear(2, 2)])
        assert_complete(model)

    def test_parameters_without_a_shape_yet(self) -> None:
        model = nn.Module()
        model.lazy = nn.LazyLinear(3)
        assert assert_complete(model).parameter_names == ("lazy.weight", "lazy.bias")
