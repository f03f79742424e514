"""The anatomy of every type: complete, in the order of a real forward, named as people mean it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from transformers import AutoModel, FunnelBaseModel

import frostline as fl
from frostline.errors import SelectorError
from frostline.plan.describe import describe
from tests.thinning import one_in
from tests.zoo.build import CANNOT_BUILD, build, model_types, tiny_config
from tests.zoo.running import first_uses, never_run, out_of_order

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tests.zoo.build import Specimen

TYPES = [model_type for model_type in model_types() if model_type not in CANNOT_BUILD]

_TOWER = {"vision embeddings", "vision layer 0", "vision layer 1", "vision norm", "vision other"}
# Units that no text reaches, and why.
NEVER_RUN: dict[str, tuple[set[str], str]] = {
    "esm": ({"other"}, "the contact head reads attention maps, and only when contacts are asked for"),
    "gemma3": (_TOWER, "a tower for images"),
    "modernvbert": (_TOWER, "a tower for images"),
    "qwen3_5": (_TOWER - {"vision norm"}, "a tower for images, whose norm is part of what joins it to the text"),
    "t5gemma2": (_TOWER, "a tower for images"),
    "ultravbert": (_TOWER, "a tower for images"),
}

# Parameters of a lower layer that wait for a higher one.
RUN_LATE = {
    "zamba2": r".*\.gate_up_proj_adapter_list\.1\..*"
}  # the shared block holds small parts for each of its places

# What a bare base model of the same config lacks although it is no part of the head, and why.
NOT_IN_BASE: dict[str, tuple[str, str]] = {
    "gte": (r"gte\.pooler\..*", "the bare model is built without its pooler"),
    "nomic_bert": (r"nomic_bert\.pooler\..*", "the bare model is built without its pooler"),
    "perceiver": (
        r"perceiver\.input_preprocessor\..*",
        "the task class chooses how the base model reads its input, and hands it over",
    ),
}

# Encoder-decoders: where their configs say how many layers each half has.
HALVES = {
    **dict.fromkeys(("bart", "bigbird_pegasus", "mbart", "mvp", "plbart"), ("encoder_layers", "decoder_layers")),
    **dict.fromkeys(("mt5", "t5", "umt5"), ("num_layers", "num_decoder_layers")),
    "t5gemma": ("encoder.num_hidden_layers", "decoder.num_hidden_layers"),
    "t5gemma2": ("encoder.text_config.num_hidden_layers", "decoder.num_hidden_layers"),
}
TOWERS = {
    **dict.fromkeys(("gemma3", "modernvbert", "ultravbert"), "vision_config.num_hidden_layers"),
    "qwen3_5": "vision_config.depth",
    "t5gemma2": "encoder.vision_config.num_hidden_layers",
}
# Where the length of the only stack stands, if not in num_hidden_layers.
LENGTHS_ELSEWHERE = {
    "albert": "num_hidden_groups",  # modules of its own; each runs several times
    "perceiver": "num_self_attends_per_block",  # the block of them runs num_blocks times
}

_THREE_NAMES = {
    "model": ("model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    "transformer": (
        "transformer.shared.weight",
        "transformer.encoder.embed_tokens.weight",
        "transformer.decoder.embed_tokens.weight",
    ),
}
_SHARED_BLOCK = r"model\.layers\.(\d)\.shared_transf(?:ormer)?\.(.*)"
# Units with a tensor that another unit has as well, or that run more than once; for all other types there are none.
SHARED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("bart", "bigbird_pegasus", "mbart", "mvp", "plbart"),
        ("embeddings", "encoder embeddings", "decoder embeddings"),
    ),
    **dict.fromkeys(("mt5", "t5", "umt5"), ("embeddings",)),
    "albert": ("layer 0",),
    "t5gemma2": ("encoder embeddings", "decoder embeddings"),
    "zamba": ("layer 2", "layer 4"),
    "zamba2": ("layer 1", "layer 3"),
}


@pytest.fixture(scope="module", params=one_in(2, TYPES))
def specimen(request: pytest.FixtureRequest) -> Specimen:
    """A model that the tests of this file read and never change."""
    return build(request.param)


@pytest.fixture(scope="module")
def anatomy(specimen: Specimen) -> fl.ModelMap:
    return fl.ModelMap.of(specimen.model)


def _names(model: PreTrainedModel, selector: str) -> set[str]:
    return set(fl.select(model, selector).names)


def _units(anatomy: fl.ModelMap, *kinds: str) -> set[str]:
    return {name for unit in anatomy.units if unit.kind in kinds for name in unit.parameter_names}


def _input_table(specimen: Specimen) -> torch.nn.Parameter:
    """The table that token ids are looked up in."""
    # The one has no single table; the other calls its latents the input.
    named = {
        "canine": "canine.char_embeddings.HashBucketCodepointEmbedder_0.weight",
        "perceiver": "perceiver.input_preprocessor.embeddings.weight",
    }
    if specimen.model_type in named:
        return specimen.model.get_parameter(named[specimen.model_type])
    return specimen.model.get_input_embeddings().get_parameter("weight")


def _at(config: Any, path: str) -> int:
    for name in path.split("."):
        config = getattr(config, name)
    return int(config)


def test_every_tensor_is_in_exactly_one_unit(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    model = specimen.model
    parameters = Counter(name for unit in anatomy.units for name in unit.parameter_names)
    buffers = Counter(name for unit in anatomy.units for name in unit.buffer_names)
    assert parameters == Counter(name for name, _ in model.named_parameters())
    assert buffers == Counter(name for name, _ in model.named_buffers())
    assert len({unit.name for unit in anatomy.units}) == len(anatomy.units)


def test_units_come_in_the_order_in_which_the_forward_runs_them(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    late = re.compile(RUN_LATE.get(specimen.model_type, ""))
    uses = first_uses(specimen.model, anatomy, specimen.batch)
    waiting = {name for name in uses if late.fullmatch(name)}
    assert bool(waiting) == (specimen.model_type in RUN_LATE)
    uses = {name: time for name, time in uses.items() if name not in waiting}
    assert out_of_order(anatomy, uses) == []
    assert never_run(anatomy, uses) == NEVER_RUN.get(specimen.model_type, (set(), ""))[0]


def test_the_head_is_what_the_task_class_adds(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    model = specimen.model
    # transformers asks for the class that a Funnel's name stands for; the classifier holds the one without a decoder.
    made: Any = FunnelBaseModel if specimen.model_type == "funnel" else AutoModel.from_config
    with torch.device("meta"):
        base: Any = made(tiny_config(specimen.model_type))
    prefix = f"{model.base_model_prefix}."
    in_base = {f"{prefix}{name}" for name, _ in base.named_parameters(remove_duplicate=False)}
    pattern = NOT_IN_BASE.get(specimen.model_type, ("", ""))[0]
    added = {name for name, _ in model.named_parameters() if name not in in_base}
    excepted = {name for name in added if re.fullmatch(pattern, name)}
    assert bool(excepted) == (specimen.model_type in NOT_IN_BASE)
    assert _units(anatomy, "head") == added - excepted
    assert anatomy.units[-1].kind == "head"
    assert _units(anatomy, "head")


def test_stacks_are_as_long_as_the_config_says(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    model_type, config = specimen.model_type, cast("Any", specimen.model.config)
    found = {stack.name: len(stack) for stack in anatomy.stacks}
    expected: dict[str, int] = {}
    if model_type in HALVES:
        expected = {
            half: _at(config, path) for half, path in zip(("encoder", "decoder"), HALVES[model_type], strict=True)
        }
    elif model_type == "funnel":
        expected = {"": sum(config.block_sizes)}
    else:
        where = LENGTHS_ELSEWHERE.get(model_type, "num_hidden_layers")
        expected = {"": _at(config.get_text_config(), where)}
    if model_type in TOWERS:
        expected["vision"] = _at(config, TOWERS[model_type])
    assert found == expected
    assert bool(config.is_encoder_decoder) == ("decoder" in found)


def test_every_layer_of_a_stack_is_a_unit_with_parameters(anatomy: fl.ModelMap) -> None:
    for stack in anatomy.stacks:
        layers = [unit for unit in anatomy.units if unit.kind == "layer" and unit.stack == stack.name]
        assert [unit.index for unit in layers] == list(range(len(stack)))
        assert all(unit.parameter_names for unit in layers)


def test_selectors_mean_what_a_person_expects(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    model = specimen.model
    everything = {name for name, _ in model.named_parameters()}
    table = _input_table(specimen)
    embeddings, head = _names(model, "embeddings"), _names(model, "head")
    assert any(parameter is table and name in embeddings for name, parameter in model.named_parameters())
    assert embeddings == _units(anatomy, "embeddings")
    assert head == _units(anatomy, "head")
    assert _names(model, "all") == everything
    assert _names(model, "backbone") == everything - head
    layers: set[str] = set()
    for stack in anatomy.stacks:
        word = f"{stack.name}.layers".lstrip(".")
        # By identity, so that what two layers share is theirs under whatever name it is printed.
        inside = [
            {id(tensor) for part in parts for tensor in model.get_submodule(part).parameters()}
            for parts in stack.layers
        ]
        for selector, wanted in (
            (f"{word}[:1]", inside[:1]),
            (f"{word}[:2]", inside[:2]),
            (f"{word}[-1]", inside[-1:]),
            (word, inside),
        ):
            ids = set().union(*wanted)
            assert _names(model, selector) == {name for name, tensor in model.named_parameters() if id(tensor) in ids}
        layers |= _names(model, word)
    rest = _units(anatomy, "norm", "pooler", "other")
    assert layers.isdisjoint(embeddings | head | rest)
    assert embeddings | layers | rest | head == everything


def test_a_layer_too_many_is_refused(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    for stack in anatomy.stacks:
        word = f"{stack.name}.layers".lstrip(".")
        with pytest.raises(SelectorError, match=f"its layers are 0 to {len(stack) - 1}"):
            fl.select(specimen.model, f"{word}[{len(stack)}]")
    if "" not in {stack.name for stack in anatomy.stacks}:
        with pytest.raises(SelectorError, match="Say which"):
            fl.select(specimen.model, "layers[0]")


def test_what_is_selected_can_be_described(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    model = specimen.model
    first = f"{anatomy.stacks[0].name}.layers[:1]".lstrip(".")
    chosen = ["embeddings", "backbone", "head", "all", first, "bias", "norms", f"embeddings, {first}, ~norms"]
    for selector in chosen:
        # Some have neither biases nor normalisations with weights.
        if selector in {"bias", "norms"} and not anatomy.kinds[cast("Any", selector)]:
            continue
        if "~norms" in selector and not anatomy.kinds["norms"]:
            continue
        names = _names(model, selector)
        assert _names(model, describe(anatomy, names)) == names
    for unit in anatomy.units:
        if unit.parameter_names:
            assert _names(model, describe(anatomy, unit.parameter_names)) == set(unit.parameter_names)


def test_tied_weights_are_found_and_said(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    model_type = specimen.model_type
    prefix = specimen.model.base_model_prefix
    if model_type in {"zamba", "zamba2"}:
        groups = [[re.fullmatch(_SHARED_BLOCK, name) for name in group] for group in anatomy.tied]
        lower, upper = (unit.index for unit in anatomy.units if unit.shared)
        assert len(groups) == {"zamba": 9, "zamba2": 12}[model_type]
        for group in groups:
            first, second = (match.groups() for match in group if match)
            assert (first[0], second[0]) == (str(lower), str(upper))
            assert first[1] == second[1]
    elif model_type == "t5gemma2":
        tables = [f"{place}.embed_tokens" for place in ("model.encoder.text_model", "model.decoder")]
        assert anatomy.tied == tuple(
            tuple(f"{table}.{name}" for table in tables) for name in ("weight", "eoi_embedding")
        )
    else:
        assert anatomy.tied == ((_THREE_NAMES[prefix],) if model_type in HALVES and model_type in SHARED else ())
    assert tuple(unit.name for unit in anatomy.units if unit.shared) == SHARED.get(model_type, ())


def test_what_runs_more_than_once_is_said(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    albert = ("The only layer runs 4 times in a forward, with the same weights: freezing it freezes all of them.",)
    assert anatomy.notes == (albert if specimen.model_type == "albert" else ())


def test_rotary_buffers_and_tables_of_positions_are_placed(specimen: Specimen, anatomy: fl.ModelMap) -> None:
    for unit in anatomy.units:
        names = (*unit.parameter_names, *unit.buffer_names)
        if any(re.search(r"inv_freq|rel_embeddings|position_ids", name) for name in names):
            assert unit.kind in {"embeddings", "layer"}, names
        if any(re.search(r"expert|router", name) for name in names):
            assert unit.kind == "layer", names


@pytest.mark.parametrize(
    ("model_type", "name", "unit"),
    [
        ("t5", "transformer.decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "decoder layer 0"),
        ("umt5", "transformer.encoder.block.3.layer.0.SelfAttention.relative_attention_bias.weight", "encoder layer 3"),
        ("mpnet", "mpnet.encoder.relative_attention_bias.weight", "embeddings"),
        ("deberta-v2", "deberta.encoder.rel_embeddings.weight", "embeddings"),
        ("xlnet", "transformer.layer.0.rel_attn.r_w_bias", "layer 0"),
        ("gemma3_text", "model.rotary_emb.full_attention_inv_freq", "embeddings"),
        ("qwen2_moe", "model.layers.1.mlp.gate.weight", "layer 1"),
        ("qwen2_moe", "model.layers.3.mlp.shared_expert.up_proj.weight", "layer 3"),
        ("qwen2_moe", "model.layers.2.mlp.experts.gate_up_proj", "layer 2"),
        ("gpt_oss", "model.layers.1.mlp.router.bias", "layer 1"),
        # registered before the layers, but applied behind them
        ("opt", "model.decoder.final_layer_norm.weight", "norm"),
        ("t5gemma", "model.encoder.norm.weight", "encoder norm"),
        ("t5gemma", "model.decoder.norm.weight", "decoder norm"),
        ("gemma3", "model.multi_modal_projector.mm_soft_emb_norm.weight", "vision other"),
        ("modernvbert", "model.connector.modality_projection.weight", "vision other"),
        ("canine", "canine.final_char_encoder.layer.0.attention.self.query.weight", "other"),
        ("perceiver", "perceiver.embeddings.latents", "embeddings"),
    ],
)
def test_parts_that_are_easily_misplaced(model_type: str, name: str, unit: str) -> None:
    assert fl.ModelMap.of(build(model_type).model).unit_of[name].name == unit
