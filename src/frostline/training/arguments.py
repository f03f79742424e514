"""``transformers.TrainingArguments`` with the plan and the engine's settings as fields."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import transformers

from frostline.engine.settings import EngineSettings, StoreDtype, StoreWhere

_ENGINE: dict[str, Any] = {setting.name: setting for setting in fields(EngineSettings)}


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """All fields of ``transformers.TrainingArguments``, which parameters train, and what the engine may do.

    ``HfArgumentParser(frostline.TrainingArguments)`` gives the options ``--freeze``, ``--train_only``,
    ``--schedule``, ``--frozen_mode``, ``--no_probe``, ``--save_deltas``, ``--no_engine``, ``--store``, ``--store_dir``,
    ``--store_budget``, ``--store_dtype``, ``--store_views``, ``--no_padding_free`` and ``--no_guard`` beside the usual
    ones.
    """

    freeze: str | None = field(
        default=None,
        metadata={"help": "What is frozen, as a selector: 'embeddings, layers[:8]'."},
    )
    train_only: str | None = field(
        default=None,
        metadata={"help": "What trains, as a selector; all else is frozen. Not together with freeze."},
    )
    schedule: str | None = field(
        default=None,
        metadata={"help": "What trains phase by phase: a preset's name or a TOML file. Not together with a plan."},
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
    store: StoreWhere = field(default=_ENGINE["store"].default, metadata=_ENGINE["store"].metadata)
    store_dir: str | None = field(default=_ENGINE["store_dir"].default, metadata=_ENGINE["store_dir"].metadata)
    store_budget: str | None = field(default=_ENGINE["store_budget"].default, metadata=_ENGINE["store_budget"].metadata)
    store_dtype: StoreDtype | None = field(
        default=_ENGINE["store_dtype"].default, metadata=_ENGINE["store_dtype"].metadata
    )
    store_views: int | None = field(
        default=None,
        metadata={
            "help": "For training rows that are others each time they are read: so many fixed views of each are kept, "
            "and taken in turn by epoch. Training sees no others."
        },
    )
    padding_free: bool = field(default=_ENGINE["padding_free"].default, metadata=_ENGINE["padding_free"].metadata)
    guard: bool = field(default=_ENGINE["guard"].default, metadata=_ENGINE["guard"].metadata)
