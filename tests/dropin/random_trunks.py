"""Small trunks of random wiring, with attention through transformers' interface or without it."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.dropin.random_recipes import Recipe

WIDTH, HEADS, VOCABULARY, POSITIONS = 16, 2, 60, 64


class OwnConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """As much of a config as transformers' masks and attention functions ask for."""

    model_type = "random-trunk"
    hidden_size = WIDTH
    num_attention_heads = HEADS


class Attention(nn.Module):
    """Self-attention, through the interface or by torch's function itself."""

    def __init__(self, config: Any, *, through_interface: bool) -> None:
        super().__init__()
        self.config = config
        self.is_causal = False  # the mask says all
        self.scaling = (WIDTH // HEADS) ** -0.5
        self.num_key_value_groups = 1
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self._through_interface = through_interface

    def forward(self, hidden: Tensor, mask: Tensor | None, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        shape = (*hidden.shape[:-1], HEADS, -1)
        query, key, value = (
            part(hidden).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value)
        )  # (rows, heads, length, width)
        if turns is not None:
            query, key = _turned(query, *turns), _turned(key, *turns)
        if self._through_interface:
            attend = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation, _eager)
            attended = attend(self, query, key, value, mask, dropout=0.0, scaling=self.scaling)[0]
        else:
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
        output: Tensor = self.output(attended.reshape(hidden.shape))
        return output


def _eager(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    scores = query @ key.transpose(2, 3) * scaling
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return (weights @ value).transpose(1, 2), weights


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions; the tables are (length, width)."""
    one, other = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat([-other, one], dim=-1) * sines


class Block(nn.Module):
    """One layer: norms before or behind, attention and feed-forward one after the other or side by side."""

    def __init__(self, recipe: Recipe, config: Any) -> None:
        super().__init__()
        self.attention = Attention(config, through_interface=recipe.attention != "torch")
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self._norms_before = recipe.norms == "before"
        self._is_parallel = recipe.wiring == "parallel"

    def forward(self, hidden: Tensor, mask: Tensor | None, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        if self._is_parallel:
            normed = self.first_norm(hidden)
            parallel: Tensor = hidden + self.attention(normed, mask, turns) + self._feed(self.second_norm(hidden))
            return parallel
        if self._norms_before:
            hidden = hidden + self.attention(self.first_norm(hidden), mask, turns)
            return hidden + self._feed(self.second_norm(hidden))
        hidden = self.first_norm(hidden + self.attention(hidden, mask, turns))
        normed_: Tensor = self.second_norm(hidden + self._feed(hidden))
        return normed_

    def _feed(self, hidden: Tensor) -> Tensor:
        fed: Tensor = self.down(functional.gelu(self.up(hidden)))
        return fed


class Embeddings(nn.Module):
    """Tokens, with or without positions and segments, and a norm behind them or none."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(POSITIONS + 1, WIDTH) if recipe.positions in {"absolute", "by mask"} else None
        self.segments = nn.Embedding(2, WIDTH) if recipe.segments else None
        self.norm = nn.LayerNorm(WIDTH) if recipe.norms == "behind" else nn.Identity()
        self._by_mask = recipe.positions == "by mask"

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor | None) -> Tensor:
        embedded = self.words(ids)
        if self.places is not None:
            places = mask.cumsum(1) * mask if self._by_mask else torch.arange(ids.shape[1])
            embedded = embedded + self.places(places)
        if self.segments is not None:
            embedded = embedded + self.segments(torch.zeros_like(ids) if segments is None else segments)
        normed: Tensor = self.norm(embedded)
        return normed


class OwnTrunk(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A trunk of random wiring."""

    config_class = OwnConfig
    _supports_sdpa = True

    def __init__(self, recipe: Recipe) -> None:
        config: Any = OwnConfig()
        config._attn_implementation = "eager" if recipe.attention == "eager" else "sdpa"
        super().__init__(config)
        self._recipe = recipe
        self.embeddings = Embeddings(recipe)
        count = 1 if recipe.wiring == "shared" else recipe.layers
        self.layers = nn.ModuleList(Block(recipe, config) for _ in range(count))
        self.gates = nn.Parameter(torch.linspace(0.5, 1.0, recipe.layers)) if recipe.wiring == "gated" else None
        self.mixer = nn.Conv1d(WIDTH, WIDTH, 3, padding=1) if recipe.wiring == "mixing" else None
        self.table = nn.Embedding(2 * POSITIONS + 1, HEADS) if recipe.positions == "bias" else None
        self.norm = nn.LayerNorm(WIDTH) if recipe.norms == "before" else nn.Identity()

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The last states, (rows, length, width), and those before each layer and behind the last."""
        hidden = self.embeddings(ids, mask, segments)
        attended, turns = self._attended(hidden, mask), self._turns(ids.shape[1])
        states = [hidden]
        for place in range(self._recipe.layers):
            layer = self.layers[place % len(self.layers)]
            states.append(layer(self._entering(states, place, mask), attended, turns))
            if self.gates is not None:
                states[-1] = states[-2] + self.gates[place] * (states[-1] - states[-2])
        return self.norm(states[-1]), states

    def _entering(self, states: list[Tensor], place: int, mask: Tensor) -> Tensor:
        """What a layer is given."""
        hidden = states[-1]
        wiring = self._recipe.wiring
        if wiring == "dense":
            return torch.stack(states).mean(0)
        if wiring == "first everywhere" or (wiring == "first at last" and place == self._recipe.layers - 1):
            return hidden + states[0]
        if self.mixer is not None and place == 1:
            mixed: Tensor = self.mixer((hidden * mask.unsqueeze(-1)).transpose(1, 2)).transpose(1, 2)
            return hidden + mixed
        return hidden

    def _attended(self, hidden: Tensor, mask: Tensor) -> Tensor | None:
        """The mask that attention takes, with a bias of positions in it where there is one."""
        length = hidden.shape[1]
        if self._recipe.attention == "torch":
            there = mask[:, None, None, :].bool().expand(-1, 1, length, -1)
            if self._recipe.causal:
                there = there & torch.ones(length, length, dtype=torch.bool).tril()
            allowed: Tensor | None = there | torch.eye(length, dtype=torch.bool)
        else:
            make: Any = create_causal_mask if self._recipe.causal else create_bidirectional_mask
            options: dict[str, Any] = {"past_key_values": None} if self._recipe.causal else {}
            wanted = signature(make).parameters.get("cache_position")
            if wanted is not None and wanted.default is Parameter.empty:  # in transformers 5.0
                options["cache_position"] = torch.arange(length)
            allowed = make(self.config, hidden, mask, **options)
            if allowed is None and self._recipe.causal:
                allowed = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
                allowed = allowed if self._recipe.attention != "eager" else _additive(allowed)
        if self.table is None:
            return allowed
        places = torch.arange(length)
        bias: Tensor = self.table((places[:, None] - places[None]).clamp(-POSITIONS, POSITIONS) + POSITIONS)
        bias = bias.permute(2, 0, 1).unsqueeze(0)  # (1, heads, length, length)
        if allowed is not None:
            bias = bias + (_additive(allowed) if allowed.dtype == torch.bool else allowed)
        return bias

    def _turns(self, length: int) -> tuple[Tensor, Tensor] | None:
        if self._recipe.positions != "rotary":
            return None
        half = WIDTH // HEADS // 2
        angles = torch.arange(length)[:, None] * 100.0 ** (-torch.arange(half) / half)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def _additive(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape).masked_fill(~allowed, -1e9)


def trunk_of(recipe: Recipe) -> Any:
    """Build the trunk that a recipe names, and name the parts of it that can be frozen, from the lowest on.

    Returns:
        The trunk, and per part its modules: the embeddings, then each layer.
    """
    drawn = {"initializer_range": 0.2, "attn_implementation": "eager" if recipe.attention == "eager" else "sdpa"}
    if recipe.trunk == "own":
        own: Any = OwnTrunk(recipe)
        return own, [[own.embeddings], *([layer] for layer in own.layers)]
    make, sizes = _OF_TRANSFORMERS[recipe.trunk]
    values: dict[str, Any] = {"vocab_size": VOCABULARY} | drawn | sizes
    trunk: Any = make(values | {_LAYERS.get(recipe.trunk, "num_hidden_layers"): recipe.layers})
    if recipe.trunk == "gpt2":
        return trunk, [[trunk.wte, trunk.wpe], *([layer] for layer in trunk.h)]
    stack = trunk.transformer if recipe.trunk == "distilbert" else trunk.encoder
    return trunk, [[trunk.embeddings], *([layer] for layer in stack.layer)]


_USUAL: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": POSITIONS + 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}
_DISTILBERT: dict[str, Any] = {
    "dim": WIDTH,
    "n_heads": HEADS,
    "hidden_dim": 2 * WIDTH,
    "max_position_embeddings": POSITIONS,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
_GPT2: dict[str, Any] = {
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_positions": POSITIONS,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
_LAYERS = {"distilbert": "n_layers", "gpt2": "n_layer"}
_OF_TRANSFORMERS: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any]]] = {
    "bert": (lambda values: BertModel(BertConfig(**values), add_pooling_layer=False), _USUAL),
    "roberta": (lambda values: RobertaModel(RobertaConfig(**values), add_pooling_layer=False), _USUAL),
    "distilbert": (lambda values: DistilBertModel(DistilBertConfig(**values)), _DISTILBERT),
    "gpt2": (lambda values: GPT2Model(GPT2Config(**values)), _GPT2),
}
