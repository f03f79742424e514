"""Beyond sequence classification: other tasks, images and sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
import transformers
from torch import nn

import frostline as fl
from tests.anatomy.test_modelmap import assert_complete, units
from tests.models import batch, names_of, tiny_config
from tests.zoo.running import first_uses, never_run, out_of_order

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_IMAGES = _SMALL | {"image_size": 16, "patch_size": 8, "num_channels": 3}
_SOUND = _SMALL | {
    "conv_dim": (8, 8),
    "conv_stride": (4, 4),
    "conv_kernel": (8, 4),
    "num_feat_extract_layers": 2,
    "feat_extract_norm": "group",
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}
_WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "classifier_proj_size": 8,
}


def _made(model_class: str, config: Any) -> nn.Module:
    torch.manual_seed(0)
    return cast("nn.Module", getattr(transformers, model_class)(config).eval())


def _configured(model_class: str, config_class: str, **values: Any) -> nn.Module:
    return _made(model_class, getattr(transformers, config_class)(**values))


def pixels(size: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * size * size).reshape(2, 3, size, size)}


def _words(*shape: int) -> dict[str, torch.Tensor]:
    return {"input_ids": batch(2, 6) if not shape else torch.arange(12).reshape(shape) % 7 + 3}


_BERT = ("embeddings", "layers 2", "head")
_DECODER = ("embeddings", "layers 2", "norm", "head")

CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, torch.Tensor], tuple[str, ...], tuple[str, ...]]] = {
    # the model; what it reads; its units; what the names of its head begin with
    "BertForTokenClassification": (
        lambda: _made("BertForTokenClassification", tiny_config("bert")),
        _words(),
        _BERT,
        ("classifier.",),
    ),
    "BertForQuestionAnswering": (
        lambda: _made("BertForQuestionAnswering", tiny_config("bert")),
        _words(),
        _BERT,
        ("qa_outputs.",),
    ),
    "BertForMultipleChoice": (
        lambda: _made("BertForMultipleChoice", tiny_config("bert")),
        _words(2, 2, 3),
        ("embeddings", "layers 2", "pooler", "head"),
        ("classifier.",),
    ),
    "BertForMaskedLM": (lambda: _made("BertForMaskedLM", tiny_config("bert")), _words(), _BERT, ("cls.",)),
    "DistilBertForQuestionAnswering": (
        lambda: _made("DistilBertForQuestionAnswering", tiny_config("distilbert")),
        _words(),
        _BERT,
        ("qa_outputs.",),
    ),
    "RobertaForTokenClassification": (
        lambda: _made("RobertaForTokenClassification", tiny_config("roberta")),
        _words(),
        _BERT,
        ("classifier.",),
    ),
    "GPT2ForTokenClassification": (
        lambda: _made("GPT2ForTokenClassification", tiny_config("gpt2")),
        _words(),
        _DECODER,
        ("classifier.",),
    ),
    "LlamaForCausalLM": (lambda: _made("LlamaForCausalLM", tiny_config("llama")), _words(), _DECODER, ("lm_head.",)),
    "LlamaForQuestionAnswering": (
        lambda: _made("LlamaForQuestionAnswering", tiny_config("llama")),
        _words(),
        _DECODER,
        ("qa_outputs.",),
    ),
    "ViT": (
        lambda: _configured("ViTForImageClassification", "ViTConfig", **_IMAGES),
        pixels(16),
        _DECODER,
        ("classifier.",),
    ),
    "BEiT": (
        lambda: _configured("BeitForImageClassification", "BeitConfig", **_IMAGES),
        pixels(16),
        ("embeddings", "layers 2", "pooler", "head"),
        ("classifier.",),
    ),
    "ResNet": (
        lambda: _configured(
            "ResNetForImageClassification",
            "ResNetConfig",
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[2, 2],
            layer_type="basic",
        ),
        pixels(32),
        ("embeddings", "layers 2", "head"),  # its layers are its stages
        ("classifier.",),
    ),
    "Swin": (
        lambda: _configured(
            "SwinForImageClassification",
            "SwinConfig",
            image_size=32,
            patch_size=4,
            embed_dim=8,
            depths=[2, 2],
            num_heads=[2, 2],
            window_size=4,
        ),
        pixels(32),
        _DECODER,
        ("classifier.",),
    ),
    "ConvNeXt": (
        lambda: _configured(
            "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16], depths=[2, 2], num_stages=2
        ),
        pixels(32),
        _DECODER,
        ("classifier.",),
    ),
    "Wav2Vec2": (
        lambda: _configured("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", **_SOUND),
        {"input_values": torch.linspace(-1, 1, 1600).reshape(2, 800)},
        _BERT,
        ("projector.", "classifier."),
    ),
    "Wav2Vec2 with its norm behind the layers": (
        lambda: _configured("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", **_SOUND, do_stable_layer_norm=True),
        {"input_values": torch.linspace(-1, 1, 1600).reshape(2, 800)},
        _DECODER,
        ("projector.", "classifier."),
    ),
    "Whisper's encoder": (
        lambda: _configured("WhisperForAudioClassification", "WhisperConfig", **_WHISPER),
        {"input_features": torch.linspace(-1, 1, 640).reshape(2, 8, 40)},
        _DECODER,
        ("projector.", "classifier."),
    ),
    "AST": (
        lambda: _configured(
            "ASTForAudioClassification",
            "ASTConfig",
            **_SMALL,
            max_length=32,
            num_mel_bins=16,
            patch_size=8,
            frequency_stride=8,
            time_stride=8,
        ),
        {"input_values": torch.linspace(-1, 1, 1024).reshape(2, 32, 16)},
        _DECODER,
        ("classifier.",),
    ),
}


def assert_runs_in_order(model: nn.Module, anatomy: fl.ModelMap, inputs: dict[str, torch.Tensor]) -> None:
    uses = first_uses(model, anatomy, inputs)
    assert out_of_order(anatomy, uses) == []
    assert never_run(anatomy, uses) == set()


@pytest.mark.parametrize("case", CASES)
def test_other_tasks_and_other_senses(case: str) -> None:
    make, inputs, expected, head = CASES[case]
    model = make()
    anatomy = assert_complete(model)
    assert [unit.name for unit in anatomy.units] == units(*expected)
    assert set(fl.select(model, "head").names) == names_of(model, *head) != set()
    assert [(stack.name, len(stack)) for stack in anatomy.stacks] == [("", 2)]
    assert_runs_in_order(model, anatomy, inputs)


class TestLanguageModels:
    def test_a_head_that_is_the_table_of_embeddings(self) -> None:
        model = _made("GPT2LMHeadModel", tiny_config("gpt2"))
        anatomy = assert_complete(model)
        assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 2", "norm")
        assert anatomy.tied == (("transformer.wte.weight", "lm_head.weight"),)
        assert_runs_in_order(model, anatomy, _words())

    def test_the_head_of_a_masked_one_shares_its_matrix_with_the_embeddings(self) -> None:
        model = _made("BertForMaskedLM", tiny_config("bert"))
        by_name = {unit.name: unit for unit in fl.ModelMap.of(model).units}
        assert by_name["head"].shared
        assert by_name["embeddings"].shared
        assert by_name["head"].alias_names == ("cls.predictions.decoder.weight",)
        fl.freeze(model, "embeddings")
        assert not model.get_parameter("cls.predictions.decoder.weight").requires_grad

    def test_from_text_to_text(self) -> None:
        model = _made("T5ForConditionalGeneration", tiny_config("t5", decoder_start_token_id=0))
        anatomy = assert_complete(model)
        assert [(stack.name, len(stack)) for stack in anatomy.stacks] == [("encoder", 2), ("decoder", 3)]
        inputs = _words() | {"decoder_input_ids": batch(2, 4)}
        assert_runs_in_order(model, anatomy, inputs)
        assert set(fl.select(model, "decoder.layers[-1:]").names) == names_of(model, "decoder.block.2.")
        assert set(fl.select(model, "encoder.layers[:1]").names) == names_of(model, "encoder.block.0.")

    @pytest.mark.parametrize(
        ("model_class", "expected", "head"),
        [
            ("T5EncoderModel", ("embeddings", "layers 2", "norm"), ()),
            ("T5ForTokenClassification", ("embeddings", "layers 2", "norm", "head"), ("classifier.",)),
            (
                "T5Model",
                ("embeddings", "encoder layers 2", "encoder norm", "decoder layers 3", "decoder norm"),
                (),
            ),
            (
                "T5ForQuestionAnswering",
                ("embeddings", "encoder layers 2", "encoder norm", "decoder layers 3", "decoder norm", "head"),
                ("qa_outputs.",),
            ),
        ],
    )
    def test_halves_that_stand_beside_the_head(
        self, model_class: str, expected: tuple[str, ...], head: tuple[str, ...]
    ) -> None:
        model = _made(model_class, tiny_config("t5", decoder_start_token_id=0))
        anatomy = assert_complete(model)
        assert [unit.name for unit in anatomy.units] == units(*expected)
        found = {name for unit in anatomy.units if unit.kind == "head" for name in unit.parameter_names}
        assert found == (names_of(model, *head) if head else set())
        assert set(fl.select(model, "embeddings").names) == names_of(model, "shared.", "transformer.shared.")

    def test_a_decoder_built_from_an_encoder_s_parts(self) -> None:
        encoder = transformers.BertModel(tiny_config("bert"))
        decoder = _made("BertLMHeadModel", tiny_config("bert", is_decoder=True, add_cross_attention=True))
        made: Any = transformers.EncoderDecoderModel(encoder=encoder, decoder=cast("Any", decoder))
        model: nn.Module = made.eval()
        anatomy = assert_complete(model)
        assert [stack.name for stack in anatomy.stacks] == ["encoder", "decoder"]
        assert set(fl.select(model, "head").names) == names_of(model, "decoder.cls.")
        assert set(fl.select(model, "decoder.layers[0]").names) == names_of(model, "decoder.bert.encoder.layer.0.")
        assert_runs_in_order(model, anatomy, _words() | {"decoder_input_ids": batch(2, 4)})

    def test_freezing_the_layers_of_one_leaves_the_table_free(self) -> None:
        model = _made("LlamaForCausalLM", tiny_config("llama"))
        with fl.freeze(model, "layers[:1], norm"):
            frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert frozen == names_of(model, "model.layers.0.", "model.norm.")
