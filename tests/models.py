"""Tiny models that many tests share."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, TrainingArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_USUAL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 40,
}
_SEQ2SEQ = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

# Per type of model, what makes it tiny.
SIZES: dict[str, dict[str, Any]] = {
    "bert": _USUAL,
    "roberta": _USUAL | _TOKENS,
    "distilbert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "vocab_size": 50,
        "max_position_embeddings": 40,
    },
    "electra": _USUAL | {"embedding_size": 8},
    "deberta-v2": _USUAL
    | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 8, "type_vocab_size": 0},
    "gpt2": _TOKENS | {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 40},
    "llama": _USUAL | _TOKENS | {"num_key_value_heads": 2},
    "t5": {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 2,
        "vocab_size": 50,
    },
    "bart": _SEQ2SEQ
    | _TOKENS
    | {
        "d_model": 16,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "vocab_size": 50,
        "max_position_embeddings": 40,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    },
    "xlm": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 50, "max_position_embeddings": 40},
    "funnel": {
        "vocab_size": 50,
        "block_sizes": [1, 2],
        "num_decoder_layers": 1,
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 32,
    },
    "bloom": {"vocab_size": 50, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "albert": _USUAL | {"embedding_size": 8},
}


def tiny_config(kind: str, **overrides: Any) -> Any:
    """The configuration of a tiny model of one type, of that type's own class."""
    return AutoConfig.for_model(kind, **(SIZES[kind] | overrides))


def tiny(kind: str, *, meta: bool = False, **overrides: Any) -> PreTrainedModel:
    """A tiny sequence classifier of one type, always with the same values; in training mode."""
    torch.manual_seed(0)
    with torch.device("meta") if meta else nullcontext():
        model = cast("Any", AutoModelForSequenceClassification).from_config(tiny_config(kind, **overrides))
        model.tie_weights()  # transformers 5.0 does not on the meta device
    return cast("PreTrainedModel", model.train())


def checkpoint_activations(model: Any, *, reentrant: bool = False) -> None:
    """Have a model of transformers run its layers again in the backward pass, by whatever name its version has."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})


def argument(*names: str) -> str:
    """The first of some names that ``TrainingArguments`` has."""
    known = {field.name for field in fields(TrainingArguments)}
    return next(name for name in names if name in known)


CHECKPOINTING = argument("activation_checkpointing", "gradient_checkpointing")


class Plain(nn.Module):
    """A model of plain torch: embeddings, a chain of blocks with BatchNorm and Dropout, a final norm, a head."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 4)
        self.blocks = nn.Sequential(*(PlainBlock() for _ in range(layers)))
        self.final_norm = nn.LayerNorm(4)
        self.classifier = nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.blocks(self.embed(ids).mean(dim=1))  # (batch, 4)
        return cast("torch.Tensor", self.classifier(self.final_norm(hidden)))


class PlainBlock(nn.Module):
    """One block of `Plain`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.dropout(self.norm(self.linear(hidden)).relu()))


class AdapterLinear(nn.Module):
    """A linear layer adapted the way PEFT does it: the layer itself says which of its parts are adapters."""

    adapter_layer_names = ("lora_A", "lora_B")

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})


def names_of(model: nn.Module, *prefixes: str) -> set[str]:
    """Names of the parameters that start with one of some prefixes."""
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def trainable(model: nn.Module) -> set[str]:
    """Names of the parameters whose flag is on."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def modes(model: nn.Module) -> dict[str, bool]:
    """Per module, whether it is in training mode."""
    return {path: module.training for path, module in model.named_modules()}


def flags(model: nn.Module) -> dict[str, bool]:
    """Per parameter, whether it trains."""
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def batch(rows: int = 4, length: int = 7) -> torch.Tensor:
    """Token ids that every tiny model takes, of shape (rows, length)."""
    return torch.arange(rows * length).reshape(rows, length) % 7 + 3
