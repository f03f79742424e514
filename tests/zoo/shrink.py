"""Shrinking a default config: the same small number for every field of the same name, in sub-configs too."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedConfig

LAYERS = 4
HIDDEN = 32
HEADS = 4
HEAD_DIM = HIDDEN // HEADS
EXPERTS = 4
TOP_K = 2
VOCAB = 128
POSITIONS = 64
LAYERS_OF_TWO = 2  # layers per stack where there are two

# Ids below are special tokens, ids from here on are text; images and the like are above the text.
FIRST_TEXT_ID = 10
LAST_TEXT_ID = 99

_SIZES: dict[str, int] = {
    "vocab_size": VOCAB,
    "num_key_value_heads": HEADS // 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "max_2d_position_embeddings"), POSITIONS),
    **dict.fromkeys(
        (
            *("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "word_embed_proj_dim", "pooler_hidden_size"),
            *("d_latents", "out_hidden_size"),
        ),
        HIDDEN,
    ),
    **dict.fromkeys(
        (
            *("intermediate_size", "d_ff", "d_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim"),
            *("dff", "feed_forward_size", "ffn_hidden_size", "attention_hidden_size"),
        ),
        2 * HIDDEN,
    ),
    **dict.fromkeys(
        (
            *("embedding_size", "input_embedding_size", "output_embedding_size", "entity_emb_size", "q_lora_rank"),
            *("kv_lora_rank", "moe_intermediate_size", "shared_expert_intermediate_size", "prompt_mid_dim"),
        ),
        HIDDEN // 2,
    ),
    **dict.fromkeys(
        (
            *("head_dim", "d_kv", "d_head", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "kv_channels"),
            *("linear_key_head_dim", "linear_value_head_dim", "attention_head_size", "index_head_dim"),
        ),
        HEAD_DIM,
    ),
    **dict.fromkeys(
        (
            *("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
            *("decoder_attention_heads", "num_kv_heads", "num_self_attention_heads", "num_cross_attention_heads"),
        ),
        HEADS,
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_self_attends_per_block"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), LAYERS_OF_TWO),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), TOP_K),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    "use_mamba_kernels": False,
}
# Windows that a text of a dozen tokens must notice; where the default has none, it stays so.
_WINDOWS = {"sliding_window": 4, "local_attention": 4, "window_size": 4}
_TEXT_TOKENS = {"bos": 8, "eos": 9, "sep": 6, "cls": 5, "mask": 4, "eod": 3, "decoder_start": 8, "forced_eos": 9}
_IMAGE_TOKENS = ("image", "video", "vision_start", "vision_end", "boi", "eoi")


def shrink(default: PreTrainedConfig, overrides: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """Make a small config of the same class.

    It is made anew by its constructor, so that what a config derives from its sizes (the kind of each layer, say)
    is derived from the small ones.

    Args:
        default: The config with the sizes of its constructor.
        overrides: Constructor arguments that win; a mapping under a sub-config's name overrides inside it.
    """
    given = dict(overrides or {})
    # Its own arguments, and those that it hands on.
    names = {name for kind in type(default).__mro__ for name in inspect.signature(kind).parameters}
    arguments: dict[str, Any] = {name: value for name, value in _SIZES.items() if name in names}
    arguments |= {name: value for name, value in _WINDOWS.items() if name in names and getattr(default, name, None)}
    arguments |= _special_tokens(default, names)
    for name in default.sub_configs:
        sub_config = getattr(default, name, None)
        if sub_config is not None:
            arguments[name] = shrink(sub_config, given.pop(name, None))
    return type(default)(**arguments | given)


def _special_tokens(default: PreTrainedConfig, names: set[str]) -> dict[str, int]:
    """Special tokens below the text's ids, as they are by default where they are; a pad token always."""
    tokens = {}
    for word, fallback in _TEXT_TOKENS.items():
        value = getattr(default, f"{word}_token_id", None)
        if f"{word}_token_id" in names and value is not None:
            tokens[f"{word}_token_id"] = _below_text(value, fallback)
    pad = _below_text(getattr(default, "pad_token_id", None), 7)
    if pad == tokens.get("eos_token_id"):
        pad = 7
    if "vocab_size" in names or "pad_token_id" in names:
        tokens["pad_token_id"] = pad
    for place, word in enumerate(_IMAGE_TOKENS, start=LAST_TEXT_ID + 1):
        tokens |= {f"{word}{end}": place for end in ("_token_id", "_token_index") if f"{word}{end}" in names}
    return tokens


def _below_text(value: object, fallback: int) -> int:
    return value if isinstance(value, int) and 0 <= value < FIRST_TEXT_ID else fallback
