"""One vector per text: a backbone's hidden states, pooled, computed on the engine's fast paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from frostline.checkpoints.classifier import position_limit
from frostline.data.tokenising import tokenise
from frostline.engine.engine import Engine
from frostline.engine.packing.last_layer import Position, places_of
from frostline.engine.replay.boundary import core_of
from frostline.engine.runner import in_eval
from frostline.engine.settings import EngineSettings
from frostline.engine.token_layout import TokenLayout
from frostline.errors import DataError, ModelError, as_given
from frostline.runs.inference import examples_of
from frostline.training.filling_pass import ReplayableRows, batches_of, lengths_of
from frostline.training.padding import at_once

Pooling = Literal["mean"] | Position


def features(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    pooling: Pooling = "mean",
) -> Tensor:
    """Compute one vector per text, to fit a head of your own on them: a regression, a search for neighbours.

    Every layer runs once per text, in eval mode and without padding where a self-check finds that exact. The model
    stays as it is.

    Args:
        model: A model of transformers; what it has above its backbone is not run.
        tokenizer: Its tokenizer.
        texts: The texts, cut at what tokenizer and model take.
        pairs: The second text of each pair.
        pooling: Which hidden states of the last layer make the vector: their ``"mean"`` over a text's tokens, or that
            of its ``"first token"`` or ``"last token"``.

    Returns:
        In the backbone's dtype, (texts, width), on the CPU.

    Raises:
        DataError: If there are no texts, they are no list of texts, one is empty, or one has no partner.
        ModelError: If the model or the tokenizer is none of transformers, or the backbone gives out no hidden states;
            if the tokenizer has no padding token.
    """
    known = ("mean", *get_args(Position))
    if pooling not in known:
        raise DataError(f"pooling={pooling!r} is none.\nGive one of {', '.join(map(repr, known))}.")
    if not len(texts):
        raise DataError("There are no texts to compute features of.\nGive one or more.")
    core = core_of(model)
    if not isinstance(core, PreTrainedModel):
        raise ModelError(f"The model is {as_given(core)}.\nGive a model of transformers.")
    if not hasattr(tokenizer, "pad_token"):
        raise ModelError(f"The tokenizer is {as_given(tokenizer)}.\nGive the model's own, of transformers.")
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{type(tokenizer).__name__} has no padding token.\nGive it one: tokenizer.pad_token = tokenizer.eos_token."
        )
    rows = tokenise(examples_of(texts, pairs).dataset, tokenizer, model_limit=position_limit(core))[0]
    lengths = lengths_of(rows)
    if lengths is None:
        raise ModelError(f"{type(tokenizer).__name__} gives out no input_ids.\nGive the tokenizer of a text model.")
    pooled = _Pooled(core, pooling)
    batches = ReplayableRows(rows, at_once(DataCollatorWithPadding(tokenizer)), core.device)
    engine = Engine(pooled, EngineSettings())
    plan = batches_of(lengths)
    with engine.active(), in_eval(pooled), torch.no_grad():
        found = [pooled(**batch).logits.cpu() for _, batch in batches.batches(plan)]
    order = torch.tensor([row for part in plan for row in part])
    return torch.cat(found)[order.argsort()]


class _Pooled(nn.Module):
    """A backbone that gives out one vector per text, where a classifier gives out logits."""

    base_model_prefix = "backbone"

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.backbone = model.base_model
        self.config: Any = model.config
        self._pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **options)
        hidden = getattr(output, "last_hidden_state", None)  # (rows, length, width)
        if not isinstance(hidden, torch.Tensor) or hidden.shape[:2] != input_ids.shape:
            raise ModelError(
                f"{type(self.backbone).__name__} gives out no hidden states, one per token.\nGive another model."
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self._pooling == "mean":
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            return SequenceClassifierOutput(logits=(hidden * weights).sum(dim=1) / weights.sum(dim=1))
        each = torch.arange(len(hidden), device=hidden.device)
        return SequenceClassifierOutput(logits=hidden[each, places_of(self._pooling, TokenLayout(mask.bool()))])
