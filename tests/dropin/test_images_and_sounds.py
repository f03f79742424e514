"""Rows that are no texts: images, sounds, choices, and tensors for a module of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import frostline as fl
from tests.dropin.pairs import compared
from tests.dropin.trunks import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_SOUND = {
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "num_hidden_layers": 3,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 3,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "initializer_range": 0.3,
}
_TOWER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
_STAGES = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1, 1],
    "num_heads": [1, 2, 2],
}


def _from(config: str, model: str, **fields: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**fields))


IMAGES: dict[str, Callable[[], Any]] = {
    "vit": _from("ViTConfig", "ViTForImageClassification", **_SHAPE, image_size=32, patch_size=8),
    "dinov2": _from(
        *("Dinov2Config", "Dinov2ForImageClassification"),
        **{name: value for name, value in _SHAPE.items() if name != "intermediate_size"},
        image_size=32,
        patch_size=8,
    ),
    "swin": _from("SwinConfig", "SwinForImageClassification", **_STAGES, window_size=4, num_labels=3),
    "convnext": _from(
        *("ConvNextConfig", "ConvNextForImageClassification"), hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, num_labels=3
    ),
    "resnet": _from(
        *("ResNetConfig", "ResNetForImageClassification"),
        embedding_size=8,
        hidden_sizes=[8, 8, 16],
        depths=[1, 1, 1],
        layer_type="basic",
        num_labels=3,
    ),
    "clip": _from(
        *("CLIPConfig", "CLIPForImageClassification"),
        vision_config=_TOWER | {"image_size": 32, "patch_size": 8},
        text_config=_TOWER | {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2},
        num_labels=3,
    ),
}
SOUNDS: dict[str, tuple[str, tuple[int, ...], Callable[[], Any]]] = {
    "wav2vec2": ("input_values", (4000,), _from("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification", **_SOUND)),
    "hubert": ("input_values", (4000,), _from("HubertConfig", "HubertForSequenceClassification", **_SOUND)),
    "ast": (
        *("input_values", (64, 16)),
        _from(
            *("ASTConfig", "ASTForAudioClassification"),
            **_SHAPE,
            max_length=64,
            num_mel_bins=16,
            patch_size=8,
            frequency_stride=8,
            time_stride=8,
        ),
    ),
    "whisper": (
        *("input_features", (16, 100)),
        _from(
            *("WhisperConfig", "WhisperForAudioClassification"),
            d_model=16,
            encoder_layers=3,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            num_mel_bins=16,
            max_source_positions=50,
            vocab_size=50,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            classifier_proj_size=8,
            dropout=0.0,
            num_labels=3,
        ),
    ),
}


def _rows(name: str, shape: tuple[int, ...], count: int, seed: int) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(count, *shape, generator=draw)
    return [{name: value, "labels": index % 3} for index, value in enumerate(values)]


def _given(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "train_dataset": _rows(name, shape, 24, 0),
        "eval_dataset": _rows(name, shape, 12, 1),
        "data_collator": transformers.default_data_collator,
    }


def _compared(
    tmp_path: Path, make: Callable[[], Any], given: Any, freeze: str = "embeddings, layers[:-1]", **changes: Any
) -> fl.Trainer:
    def made() -> Any:
        torch.manual_seed(0)
        model = make()
        fl.freeze(model, freeze)
        return model

    return compared(tmp_path, made, given=given, eval_strategy="epoch", **changes)


def _assert_stored(trainer: fl.Trainer, rows: int) -> None:
    report = trainer.engine_report
    assert report is not None
    assert report.check.boundary is not None, report
    assert report.rows == rows


@pytest.mark.parametrize("kind", IMAGES)
def test_images(tmp_path: Path, kind: str) -> None:
    size = 64 if kind in {"convnext", "resnet"} else 32
    _assert_stored(_compared(tmp_path, IMAGES[kind], _given("pixel_values", (3, size, size))), 24 + 12)


@pytest.mark.parametrize("kind", SOUNDS)
def test_sounds(tmp_path: Path, kind: str) -> None:
    name, shape, make = SOUNDS[kind]
    _assert_stored(_compared(tmp_path, make, _given(name, shape)), 24 + 12)


def test_sounds_that_are_masked_by_chance(tmp_path: Path) -> None:
    make = _from("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification", **_SOUND | {"apply_spec_augment": True})
    trainer = _compared(tmp_path, make, _given("input_values", (4000,)))
    assert "random numbers besides dropout (its config says apply_spec_augment=True)" in str(trainer.engine_report)


@pytest.mark.skipif(
    not hasattr(transformers.TrainingArguments, "train_sampling_strategy"),
    reason="this transformers shuffles rows always",
)
@pytest.mark.parametrize("kind", ["convnext", "swin"])
def test_images_of_several_sizes(tmp_path: Path, kind: str) -> None:
    """Batches of two sizes, each of which is another kind of call where layers give out sizes."""
    given = _given("pixel_values", (3, 32, 32))
    given["train_dataset"] = [
        row | {"pixel_values": row["pixel_values"].repeat(1, 2, 2)} if index // 8 % 2 else row
        for index, row in enumerate(given["train_dataset"])
    ]
    _compared(tmp_path, IMAGES[kind], given, train_sampling_strategy="sequential")


class _Noisy(list[Any]):
    """Images that are others each time that they are asked for."""

    draw = torch.Generator()

    def __getitem__(self, index: Any) -> Any:
        row = super().__getitem__(index)
        return row | {"pixel_values": row["pixel_values"] + torch.randn(3, 32, 32, generator=self.draw)}


def test_images_that_are_changed_by_chance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def given() -> dict[str, Any]:
        _Noisy.draw = torch.Generator().manual_seed(3)
        usual = _given("pixel_values", (3, 32, 32))
        return usual | {"train_dataset": _Noisy(usual["train_dataset"])}

    with caplog.at_level("INFO", "frostline"):
        _compared(tmp_path, IMAGES["vit"], given, num_train_epochs=3)
    assert "Store: switched off, because 24 of the 24 rows of the epoch before were never seen before" in caplog.text


class _Blocks(nn.Module):
    """A module of one's own: no config, no names that transformers knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4))
        self.out = nn.Linear(16, 3)

    def run(self, block: Any, hidden: Tensor) -> Any:
        return block(hidden)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Answer:
        hidden = self.stem(features)
        for block in self.blocks:
            hidden = self.run(block, hidden)
        logits = self.out(hidden)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Answer(loss=loss, logits=logits)


class _PassedBy(_Blocks):
    """Its hidden states pass its blocks by as well, where nothing stored can be put in their place."""

    def run(self, block: Any, hidden: Tensor) -> Any:
        return hidden + block(hidden)


@pytest.mark.parametrize("make", [_Blocks, _PassedBy])
def test_a_module_of_one_s_own(tmp_path: Path, make: type[_Blocks]) -> None:
    trainer = _compared(tmp_path, make, _given("features", (6,)), "stem, blocks.0, blocks.1, blocks.2")
    if make is _Blocks:
        _assert_stored(trainer, 24 + 12)


class _Centred(_Blocks):
    """What is frozen is moved by the mean of the batch, so that nothing of a row holds in another batch."""

    def run(self, block: Any, hidden: Tensor) -> Any:
        return block(hidden - hidden.mean(0))


@pytest.mark.parametrize("size", [1, 8])
def test_rows_that_see_each_other(tmp_path: Path, size: int) -> None:
    given = _given("features", (6,))
    frozen = "stem, blocks.0, blocks.1, blocks.2"
    trainer = _compared(tmp_path, _Centred, given, frozen, per_device_train_batch_size=size)
    assert trainer.engine_report is not None
    assert trainer.engine_report.check.boundary is None


def test_images_that_are_all_alike(tmp_path: Path) -> None:
    given = _given("pixel_values", (3, 32, 32))
    blank = torch.zeros(3, 32, 32)
    given["train_dataset"] = [row | {"pixel_values": blank} for row in given["train_dataset"]]
    _assert_stored(_compared(tmp_path, IMAGES["vit"], given), 1 + 12)
