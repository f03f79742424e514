"""The rows of a run as tokens."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from frostline.checkpoints.classifier import position_limit, refuse_strange_tokens
from frostline.data.examples import Examples
from frostline.data.labels import LabelSchema
from frostline.data.tokenising import TokenStats, tokenise
from frostline.runs.train_settings import TrainSettings

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def tokenised(
    examples: Examples,
    schema: LabelSchema,
    settings: TrainSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[datasets.Dataset, TokenStats]:
    """Tokenise rows for a model, and encode their labels.

    Raises:
        DataError: If a label cannot be read.
        ModelError: If the tokenizer gives tokens that the model has no embedding for.
    """
    made = tokenise(
        schema.encode(examples),
        tokenizer,
        max_length=settings.max_length,
        model_limit=position_limit(model),
    )
    refuse_strange_tokens(model, made[0], settings.model)
    return made


def digest_of(dataset: datasets.Dataset | None) -> str | None:
    """SHA-256 over the model inputs and labels of a data set, in hex digits."""
    if dataset is None:
        return None
    digest = hashlib.sha256()
    for batch in dataset.with_format(None).iter(batch_size=1000):
        digest.update(json.dumps(batch, sort_keys=True).encode())
    return digest.hexdigest()
