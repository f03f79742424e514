"""Rows of tokens, a collator and tiny models without dropout: what the tests of the engine within the Trainer share."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch
from transformers import BertConfig, BertForSequenceClassification, DataCollatorWithPadding

import frostline as fl
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

Row = dict[str, list[int] | int]
LOWER = "embeddings, layers[:2]"


def model(**changes: Any) -> PreTrainedModel:
    """A BERT of four layers, always with the same values."""
    values: dict[str, Any] = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    values |= {"intermediate_size": 32, "max_position_embeddings": 40, "initializer_range": 0.2}
    values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**values | changes))


def rows(count: int = 40, seed: int = 0, width: int | None = None) -> list[Row]:
    """Rows of 3 to 24 tokens; padded to `width` if it is given."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    made: list[Row] = []
    for index in range(count):
        ids = [1, *(draw.randint(3, 99) for _ in range(draw.randint(1, 22))), 2]
        padding = max(0, (width or 0) - len(ids))
        mask = [1] * len(ids) + [0] * padding
        made.append({"input_ids": ids + [0] * padding, "attention_mask": mask, "labels": index % 2})
    return made


def collate(batch: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Pad to the longest."""
    ids, masks = ([torch.tensor(row[name]) for row in batch] for name in ("input_ids", "attention_mask"))
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(ids, batch_first=True),
        "attention_mask": pad(masks, batch_first=True),
        "labels": torch.tensor([row["labels"] for row in batch]),
    }


def padding() -> DataCollatorWithPadding:
    """The same as a collator of transformers, which may be asked for batches of the engine's choice."""
    return DataCollatorWithPadding(tiny.wordpiece())


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two epochs of five steps, every loss logged.

    The gradient of a key's bias is nothing but rounding; Adam's usual epsilon would make steps of it.
    """
    values = {"output_dir": str(folder), "per_device_train_batch_size": 8, "num_train_epochs": 2}
    values |= {
        "learning_rate": 1e-3,
        "adam_epsilon": 1e-5,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return values | {"use_cpu": True, "save_strategy": "no", "dataloader_pin_memory": False} | changes


def arguments(folder: Path, **changes: Any) -> fl.TrainingArguments:
    """The same as arguments."""
    return fl.TrainingArguments(**options(folder, **changes))
