"""What single types need beside the generic shrink: constructor arguments of their configs."""

from __future__ import annotations

from typing import Any

from tests.zoo.shrink import HEAD_DIM, HEADS, HIDDEN, LAYERS, LAYERS_OF_TWO, POSITIONS

_S, _F, _L, _H = "sliding_attention", "full_attention", "linear_attention", "hybrid"
_ALTERNATING = [_S, _F] * (LAYERS // 2)
# As many key-value heads as heads: attention with a latent key, and models without grouped queries.
_NO_GROUPED_QUERIES = {"num_key_value_heads": HEADS}
_ONE_DENSE_LAYER = {"mlp_only_layers": [0]}
_GATED_DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": HEADS}
_VISION = {"num_hidden_layers": LAYERS_OF_TWO, "image_size": 32, "patch_size": 16, "num_attention_heads": HEADS}
_NO_WIDE_EMBEDDING = {"embedding_size": HIDDEN}
# As in the released checkpoints; the defaults leave out the relative positions that make the architecture.
_DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
# One block of attention per window of a few tokens, so that a dozen tokens cross a border.
_TINY_BLOCK = 4

CONFIG_RULES: dict[str, dict[str, Any]] = {
    "axk1": _NO_GROUPED_QUERIES,
    "axk2": _NO_GROUPED_QUERIES | {"index_n_heads": 2, "gated_norm_rank": 4},
    "canine": {"num_hash_buckets": 64},
    # The default has no rotary table for its own layer type.
    "cohere_compass_text": {
        "layer_types": [_S, _S, _S, _F],
        "rope_parameters": {
            _S: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            _F: None,
        },
    },
    "deberta": _DISENTANGLED | {"max_relative_positions": POSITIONS},
    "deberta-v2": _DISENTANGLED
    | {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "conv_kernel_size": 0},
    "deepseek_v2": _NO_GROUPED_QUERIES,
    "deepseek_v3": _NO_GROUPED_QUERIES,
    "esm": {"position_embedding_type": "rotary"},
    "esmc": _NO_GROUPED_QUERIES,
    "funnel": {"block_sizes": [2, 2, 2], "block_repeats": [1, 1, 1]},
    "gemma3": {"text_config": {"layer_types": _ALTERNATING}, "vision_config": _VISION, "mm_tokens_per_image": 4},
    "gemma3_text": {"layer_types": _ALTERNATING},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "gptj": {"rotary_dim": HEAD_DIM // 2},
    # Layers: mamba, attention, mamba, attention; experts in the first and the last.
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 3,
        "expert_layer_offset": 0,
        "mamba_d_state": 4,
    },
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "input_size": 32},
    # A sixth of the hidden size is a whole number, and so is a quarter of it per head.
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 16},
    "longformer": {"attention_window": _TINY_BLOCK},
    "markuplm": {
        "max_depth": 4,
        "max_xpath_tag_unit_embeddings": 16,
        "max_xpath_subs_unit_embeddings": 16,
        "tag_pad_id": 14,
        "subs_pad_id": 14,
        "xpath_unit_hidden_size": 8,
    },
    "minicpm3": _NO_GROUPED_QUERIES,
    "minimax": {"block_size": _TINY_BLOCK},
    "mistral4": _NO_GROUPED_QUERIES,
    "mobilebert": {"intra_bottleneck_size": HIDDEN // 2, "num_feedforward_networks": 2},
    "modernvbert": {"vision_config": _VISION, "pixel_shuffle_factor": 2},
    "perceiver": {"num_latents": 8},
    "qwen2_moe": _ONE_DENSE_LAYER,
    "qwen3_5": {"text_config": _GATED_DELTA, "vision_config": {"depth": LAYERS_OF_TWO, "patch_size": 4}},
    "qwen3_5_text": _GATED_DELTA,
    "qwen3_moe": _ONE_DENSE_LAYER,
    "qwen3_next": _ONE_DENSE_LAYER | _GATED_DELTA,
    # Axial positions would tie training to texts of one length; without a seed the hashing is random in eval mode too.
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "lsh"] * (LAYERS // 2),
        "local_attn_chunk_length": _TINY_BLOCK,
        "lsh_attn_chunk_length": _TINY_BLOCK,
        "num_buckets": 4,
        "hash_seed": 0,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 16,
        "pronunciation_embed_dim": 8,
        "shape_vocab_size": 16,
        "shape_embed_dim": 8,
    },
    "squeezebert": _NO_WIDE_EMBEDDING,
    "t5": {"decoder_start_token_id": 0},
    "t5gemma": {part: {"num_hidden_layers": LAYERS_OF_TWO} for part in ("encoder", "decoder")},
    "t5gemma2": {
        "encoder": {
            "text_config": {"num_hidden_layers": LAYERS_OF_TWO, "layer_types": [_S, _F]},
            "vision_config": _VISION,
            "mm_tokens_per_image": 4,
        },
        "decoder": {"num_hidden_layers": LAYERS_OF_TWO, "layer_types": [_S, _F]},
    },
    "ultravbert": {"vision_config": _VISION, "pixel_shuffle_factor": 2},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "de_DE"},
    # The third layer is the first hybrid one, and a second one shares its attention.
    "zamba": {"num_hidden_layers": LAYERS + 1, "layers_block_type": [_L, _L, _H, _L, _H], "mamba_d_state": 4},
    "zamba2": {
        "num_hidden_layers": LAYERS + 1,
        "layers_block_type": [_L, _H, _L, _H, _L],
        "mamba_d_state": 4,
        "chunk_size": _TINY_BLOCK,
    },
}
