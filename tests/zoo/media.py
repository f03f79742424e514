"""Tiny models of every type that transformers registers for images and for sounds: constructor arguments and inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import CONFIG_MAPPING

from tests.zoo.shrink import shrink

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_STAGES = 3
_WIDTHS = [8, 16, 16]
_SQUARE = {"image_size": 32, "patch_size": 8}
_STAGED = {"hidden_sizes": _WIDTHS, "depths": [1] * _STAGES}
_PYRAMID = {"num_encoder_blocks": _STAGES, "hidden_sizes": _WIDTHS, "depths": [1] * _STAGES}
_PYRAMID |= {"num_attention_heads": [1, 2, 2], "mlp_ratios": [2] * _STAGES}
_WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1] * _STAGES, "num_heads": [1, 2, 2]}
_REDUCED = {"sr_ratios": [2, 1, 1], "patch_sizes": [7, 3, 3], "strides": [4, 2, 2]}
_TWO_TOWERS = {"vision_config": _SQUARE}
# What draws random numbers besides dropout is off; docs/tasks.md says so of the engine.
_SPEECH = {
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
}
_SQUEEZED = _SPEECH | {
    "conv_dim": (8,) * 4,
    "conv_stride": (5, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 2),
    "squeeze_factor": 2,
}

IMAGE_RULES: dict[str, dict[str, Any]] = {
    "beit": _SQUARE,
    "bit": _STAGED | {"embedding_size": 8, "num_groups": 2, "hidden_sizes": [16, 16, 16]},
    "clip": _TWO_TOWERS,
    "convnext": {"num_stages": _STAGES, **_STAGED},
    "convnextv2": {"num_stages": _STAGES, **_STAGED},
    "cvt": {"embed_dim": _WIDTHS, "num_heads": [1, 2, 2], "depth": [1, 2, 3], "mlp_ratio": [2.0] * _STAGES},
    "data2vec-vision": _SQUARE,
    "deit": _SQUARE,
    "dinov2": {"image_size": 32, "patch_size": 8, "mlp_ratio": 2},
    "dinov2_with_registers": {"image_size": 32, "patch_size": 8, "mlp_ratio": 2},
    "donut-swin": _WINDOWS | {"window_size": 4},
    "efficientnet": {
        "image_size": 32,
        "width_coefficient": 0.25,
        "depth_coefficient": 1.0,
        "num_block_repeats": [1] * 7,
        "hidden_dim": 320,
    },
    "focalnet": {**_STAGED, "image_size": 32, "patch_size": 2, "embed_dim": 8, "focal_levels": [1] * _STAGES}
    | {"focal_windows": [3] * _STAGES},
    "hgnet_v2": {
        "embedding_size": 8,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 16, 16, 16],
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 8, 16, 16],
        "stage_mid_channels": [8] * 4,
        "stage_out_channels": [8, 16, 16, 16],
        "stage_num_blocks": [1] * 4,
        "stage_numb_of_layers": [2] * 4,
    },
    "hiera": {
        "embed_dim": 8,
        "image_size": [32, 32],
        "depths": [1] * _STAGES,
        "num_heads": [1, 2, 2],
        "num_query_pool": 2,
        "masked_unit_size": [4, 4],
        "masked_unit_attention": [True, True, False],
    },
    "ijepa": _SQUARE,
    "imagegpt": {"vocab_size": 33},
    "levit": _STAGED
    | {"image_size": 64, "num_attention_heads": [1, 2, 2], "key_dim": [8] * _STAGES, "hidden_sizes": [16, 16, 32]},
    "metaclip_2": _TWO_TOWERS,
    "mobilenet_v1": {"image_size": 32, "depth_multiplier": 0.1},
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.1},
    "mobilevit": {"image_size": 64, "hidden_sizes": _WIDTHS, "neck_hidden_sizes": [8] * 7},
    "mobilevitv2": {"image_size": 64, "width_multiplier": 0.1, "n_attn_blocks": [1] * _STAGES}
    | {"base_attn_unit_dims": [64] * _STAGES},
    "perceiver": {"image_size": 16, "num_latents": 8},
    "poolformer": _PYRAMID | {"patch_sizes": [7, 3, 3], "strides": [4, 2, 2], "padding": [2, 1, 1]},
    "pvt": _PYRAMID
    | {"image_size": 32, "sequence_reduction_ratios": [2, 1, 1], "patch_sizes": [4, 2, 2], "strides": [4, 2, 2]},
    "pvt_v2": _PYRAMID | _REDUCED | {"image_size": 32},
    "regnet": _STAGED | {"embedding_size": 8, "groups_width": 8},
    "resnet": _STAGED | {"embedding_size": 8, "layer_type": "basic"},
    "segformer": _PYRAMID | _REDUCED,
    "siglip": _TWO_TOWERS,
    "siglip2": {"vision_config": {"patch_size": 4, "num_patches": 16}},
    "swiftformer": {"image_size": 64, "depths": [1] * 4, "embed_dims": [8, 16, 16, 16], "mlp_ratio": 2},
    "swin": _WINDOWS | {"window_size": 4},
    "swinv2": _WINDOWS | {"window_size": 4},
    "textnet": {"image_size": 64, "stem_out_channels": 8, "hidden_sizes": [8, 8, 8, 16, 16]},
    "vit": _SQUARE,
    "vit_msn": _SQUARE,
}
SOUND_RULES: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {
        "max_length": 64,
        "num_mel_bins": 16,
        "patch_size": 8,
        "frequency_stride": 8,
        "time_stride": 8,
    },
    "data2vec-audio": _SPEECH | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3},
    "hubert": _SPEECH,
    "sew": _SQUEEZED,
    # Its own dropout draws without torch's.
    "sew-d": _SQUEEZED
    | {"position_buckets": 8, "max_position_embeddings": 64}
    | dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout", "final_dropout"), 0.0),
    "unispeech": _SPEECH,
    "unispeech-sat": _SPEECH,
    "wav2vec2": _SPEECH,
    "wav2vec2-bert": _SPEECH | {"feature_projection_input_dim": 16, "conv_depthwise_kernel_size": 3},
    "wav2vec2-conformer": _SPEECH | {"conv_depthwise_kernel_size": 3},
    "wavlm": _SPEECH | {"num_buckets": 8, "max_bucket_distance": 16},
    "whisper": {"num_mel_bins": 16, "max_source_positions": 50, "classifier_proj_size": 8},
}
_RULES = IMAGE_RULES | SOUND_RULES


def media_config(model_type: str) -> PreTrainedConfig:
    """The type's default config, made small."""
    config: PreTrainedConfig = shrink(CONFIG_MAPPING[model_type](), _RULES[model_type] | {"num_labels": 3})
    return config


def media_batch(model_type: str, config: Any, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Draw images or sounds for a tiny model.

    Returns:
        What its forward takes, of shape (rows, ...), but for labels.
    """
    if model_type in SOUND_RULES:
        shapes = {
            "audio-spectrogram-transformer": ("input_values", (64, 16)),
            "wav2vec2-bert": ("input_features", (30, 16)),
            "whisper": ("input_features", (16, 100)),
        }
        name, shape = shapes.get(model_type, ("input_values", (1600,)))
        return {name: torch.randn(rows, *shape, generator=generator)}
    if model_type == "imagegpt":
        return {"input_ids": torch.randint(0, 32, (rows, 16), generator=generator)}
    if model_type == "perceiver":
        return {"inputs": torch.randn(rows, 3, 16, 16, generator=generator)}
    if model_type == "siglip2":  # patches of several shapes, padded to one number
        masks = (torch.arange(16) < 12).long().repeat(rows, 1)
        shapes_of = torch.tensor([[3, 4]]).repeat(rows, 1)
        values = torch.randn(rows, 16, 48, generator=generator)
        return {"pixel_values": values, "pixel_attention_mask": masks, "spatial_shapes": shapes_of}
    size = getattr(getattr(config, "vision_config", config), "image_size", 32)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return {"pixel_values": torch.randn(rows, 3, *sides, generator=generator)}
