"""``transformers.TrainingArguments`` with the plan and the engine's settings as fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import transformers

from frostline.engine.settings import StoreDtype, StoreWhere


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """All fields of ``transformers.TrainingArguments``, which parameters train, and what the engine may do.

    ``HfArgumentParser(frostline.TrainingArguments)`` gives the options ``--freeze``, ``--train_only``,
    ``--frozen_mode``, ``--no_probe``, ``--save_deltas``, ``--no_engine``, ``--store``, ``--store_dir``,
    ``--store_budget``, ``--store_dtype``, ``--no_padding_free`` and ``--no_guard`` beside the usual ones.
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
    engine: bool = field(
        default=True,
        metadata={"help": "Take the fast paths that a self-check finds exact. Without it every step is the plain one."},
    )
    store: StoreWhere = field(
        default="auto",
        metadata={"help": "Where the frozen part's activations are kept. 'auto': where it takes the least time."},
    )
    store_dir: str | None = field(
        default=None,
        metadata={"help": "The folder for stores on disk; by default one in the user's cache."},
    )
    store_budget: str | None = field(
        default=None,
        metadata={"help": "The most that a store may take, such as '4GB'; by default half of what is free."},
    )
    store_dtype: StoreDtype | None = field(
        default=None,
        metadata={"help": "What activations are stored as; by default as they are computed."},
    )
    padding_free: bool = field(
        default=True,
        metadata={"help": "Run layers on real tokens only, where that is exact."},
    )
    guard: bool = field(
        default=True,
        metadata={"help": "Repeat a step on the plain path now and then, and stop what turns out to be wrong."},
    )
