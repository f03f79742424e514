"""``transformers.TrainingArguments`` with the plan as fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import transformers


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """All fields of ``transformers.TrainingArguments``, and which parameters train.

    ``HfArgumentParser(frostline.TrainingArguments)`` gives the options ``--freeze``, ``--train_only``,
    ``--frozen_mode``, ``--no_probe`` and ``--save_deltas`` beside the usual ones.
    """

    freeze: str | None = field(
        default=None,
        metadata={"help": "What is frozen, as a selector: 'embeddings, layers[:8]'."},
    )
    train_only: str | None = field(
        default=None,
        metadata={"help": "What trains, as a selector; all else is frozen. Not together with freeze."},
    )
    frozen_mode: Literal["eval", "train"] = field(
        default="eval",
        metadata={
            "help": "'eval': frozen modules stay in eval mode (dropout off). 'train': they follow model.train()."
        },
    )
    probe: bool = field(
        default=True,
        metadata={"help": "Watch the first step, and say where what moves in it is not what the flags say."},
    )
    save_deltas: bool = field(
        default=False,
        metadata={"help": "Keep in checkpoints only what differs from the checkpoint that the model was loaded from."},
    )
