"""Beyond sequence classification: other tasks, images, sound, and modules of plain torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
import transformers
from torch import nn
from transformers import BertModel

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


def _pixels(size: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * size * size).reshape(2, 3, size, size)}


def _words(*shape: int) -> dict[str, torch.Tensor]:
    return {"input_ids": batch(2, 6) if not shape else torch.arange(12).reshape(shape) % 7 + 3}


_BERT = ("embeddings", "layers 2", "head")
_DECODER = ("embeddings", "layers 2", "norm", "head")

TEXT: dict[str, tuple[Callable[[], nn.Module], dict[str, torch.Tensor], tuple[str, ...], tuple[str, ...]]] = {
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
        _pixels(16),
        _DECODER,
        ("classifier.",),
    ),
    "BEiT": (
        lambda: _configured("BeitForImageClassification", "BeitConfig", **_IMAGES),
        _pixels(16),
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
        _pixels(32),
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
        _pixels(32),
        _DECODER,
        ("classifier.",),
    ),
    "ConvNeXt": (
        lambda: _configured(
            "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16], depths=[2, 2], num_stages=2
        ),
        _pixels(32),
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


@pytest.mark.parametrize("case", TEXT)
def test_other_tasks_and_other_senses(case: str) -> None:
    make, inputs, expected, head = TEXT[case]
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


# Modules of plain torch


class BasicBlock(nn.Module):
    """Two convolutions and a way around them, as in torchvision's ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return cast("torch.Tensor", (out + (x if self.downsample is None else self.downsample(x))).relu())


class ResNet(nn.Module):
    """Built and named as torchvision's ResNet-18 is, four channels wide."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8))
        self.layer3 = nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16))
        self.layer4 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast("torch.Tensor", self.fc(self.avgpool(x).flatten(1)))


class Encoder(nn.Module):
    """A classifier on torch's own encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(8), enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.head(self.encoder(self.embedding(ids))[:, 0]))


class Recurrent(nn.Module):
    """A classifier on an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.classifier = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.classifier(self.lstm(self.embedding(ids))[0][:, -1]))


class OnBert(nn.Module):
    """A user's own module that holds a model of transformers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.projection = nn.Linear(16, 8)
        self.bert = BertModel(tiny_config("bert"))
        self.classifier = nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.bert(input_ids=input_ids).last_hidden_state[:, 0]
        return cast("torch.Tensor", self.classifier(self.projection(hidden)))


class TestResNet:
    def test_its_blocks_are_one_stack(self) -> None:
        model = ResNet().eval()
        anatomy = assert_complete(model)
        assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 8", "head")
        (stack,) = anatomy.stacks
        assert stack.paths == ("layer1", "layer2", "layer3", "layer4")
        assert set(fl.select(model, "layers[:2]").names) == names_of(model, "layer1.")
        assert set(fl.select(model, "layers[-1]").names) == names_of(model, "layer4.1.")
        assert set(fl.select(model, "embeddings").names) == names_of(model, "conv1.", "bn1.")
        assert set(fl.select(model, "head").names) == names_of(model, "fc.")
        assert_runs_in_order(model, anatomy, {"x": _pixels(32)["pixel_values"]})

    def test_statistics_of_frozen_blocks_stand_still(self) -> None:
        model = ResNet().train()
        before = fl.fingerprint(model)
        frozen = fl.freeze(model, "backbone, ~layers[-1]")
        model.train()
        model(_pixels(32)["pixel_values"])
        proof = fl.verify(before, model, frozen.plan)
        proof.raise_for_drift()
        still = {tensor.name for tensor in proof.tensors if tensor.frozen and "running" in tensor.name}
        moved = {tensor.name for tensor in proof.tensors if tensor.moved}
        assert len(still) == 2 * (1 + 7 * 2 + 3)  # the first norm, two per frozen block, three ways around
        assert moved == {
            f"layer4.1.{norm}.{buffer}"
            for norm in ("bn1", "bn2")
            for buffer in ("running_mean", "running_var", "num_batches_tracked")
        }

    @pytest.mark.parametrize("frozen_mode", ["eval", "train"])
    def test_statistics_of_the_one_of_transformers(self, frozen_mode: Any) -> None:
        model = TEXT["ResNet"][0]().train()
        before = fl.fingerprint(model)
        frozen = fl.freeze(model, "backbone", frozen_mode=frozen_mode)
        model.train()
        model(**_pixels(32))
        proof = fl.verify(before, model, frozen.plan)
        proof.raise_for_drift()
        moved = {tensor.name for tensor in proof.tensors if tensor.moved}
        assert bool(moved) == (frozen_mode == "train")
        assert all("running" in name or "num_batches" in name for name in moved)


def test_the_encoder_of_torch() -> None:
    model = Encoder().eval()
    anatomy = assert_complete(model)
    assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 3", "norm", "head")
    assert set(fl.select(model, "layers[1:]").names) == names_of(model, "encoder.layers.1.", "encoder.layers.2.")
    model.train()  # in eval mode torch takes a way through the layers that calls none of their parts
    assert_runs_in_order(model, anatomy, {"ids": batch(2, 5)})


def test_both_halves_of_torch_s_transformer() -> None:
    model = nn.Transformer(8, 2, 2, 3, 16, batch_first=True)
    anatomy = assert_complete(model)
    assert [(stack.name, len(stack)) for stack in anatomy.stacks] == [("encoder", 2), ("decoder", 3)]
    assert [unit.name for unit in anatomy.units] == units(
        "encoder layers 2", "encoder norm", "decoder layers 3", "decoder norm"
    )
    assert set(fl.select(model, "decoder.layers[:1]").names) == names_of(model, "decoder.layers.0.")
    inputs = {"src": torch.ones(1, 3, 8), "tgt": torch.ones(1, 2, 8)}
    assert_runs_in_order(model, anatomy, inputs)


class TestNoStack:
    def test_it_is_said(self) -> None:
        anatomy = assert_complete(Recurrent())
        assert anatomy.stacks == ()
        assert anatomy.notes == (
            "No chain of layers was found: name modules, parameters or globs instead of layers[…].",
        )
        assert anatomy.notes[0] in str(fl.inspect(Recurrent()))

    @pytest.mark.parametrize(
        ("selector", "beginnings"),
        [
            ("lstm", ("lstm.",)),
            ("lstm.*_l0", ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0")),
            (r"re:lstm\.weight.*l1", ("lstm.weight_ih_l1", "lstm.weight_hh_l1")),
            ("embeddings", ("embedding.",)),
            ("all, ~classifier", ("embedding.", "lstm.")),
        ],
    )
    def test_names_work(self, selector: str, beginnings: tuple[str, ...]) -> None:
        model = Recurrent()
        with fl.freeze(model, selector):
            frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
            model(batch(2, 5)).sum().backward()
        assert frozen == names_of(model, *beginnings)
        assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == frozen


class TestAModelOfOnesOwnAroundOneOfTransformers:
    def test_the_backbone_is_the_model_inside(self) -> None:
        model = OnBert().eval()
        anatomy = assert_complete(model)
        assert anatomy.model_class == "OnBert"
        assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 2", "pooler", "head")
        assert set(fl.select(model, "backbone").names) == names_of(model, "bert.")
        # The first of its head is registered before the backbone.
        assert set(fl.select(model, "head").names) == names_of(model, "projection.", "classifier.")
        uses = first_uses(model, anatomy, {"input_ids": batch(2, 5)})
        assert out_of_order(anatomy, uses) == []

    def test_freezing_its_backbone_leaves_the_rest(self) -> None:
        model = OnBert().train()
        before = fl.fingerprint(model)
        frozen = fl.freeze(model, "backbone")
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        model(batch(2, 5)).square().sum().backward()
        optimizer.step()
        proof = fl.verify(before, model, frozen.plan)
        assert proof.ok
        assert {tensor.name for tensor in proof.tensors if tensor.moved} == names_of(
            model, "projection.", "classifier."
        )
