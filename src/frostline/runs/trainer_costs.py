"""What a Trainer takes besides the model's own work."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np

from frostline.base.random_state import RngState
from frostline.checkpoints.quiet_loading import quiet
from frostline.engine.settings import EngineSettings
from frostline.runs.step_costs import StepCosts
from frostline.runs.thin_model import batch_of

_BATCH, _STEPS = 16, 40
_NEXT_TO_NOTHING = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


@dataclass(frozen=True, slots=True)
class TrainerCosts:
    """What a Trainer takes besides the model's own work, in seconds.

    Attributes:
        start: Until its first step.
        step: In a step: for the batch, the bookkeeping and the callbacks.
    """

    start: float
    step: float


@cache
def trainer_costs(*, half: bool = False) -> TrainerCosts:
    """Measure what a Trainer takes besides, on a model that computes next to nothing."""
    from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, TrainerCallback

    from frostline.training.arguments import TrainingArguments
    from frostline.training.trainer import Trainer

    begun: list[float] = []
    ended: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            begun.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    rng = RngState()
    width = 12
    rows = [
        {"input_ids": [5 + row % 10] * width, "attention_mask": [1] * width, "labels": 0}
        for row in range(_BATCH * _STEPS)
    ]
    model = BertForSequenceClassification(BertConfig(**cast("Any", _NEXT_TO_NOTHING)))
    batch = batch_of([width] * _BATCH, model)
    costs = StepCosts(model, batch, batch, EngineSettings(), half=half)
    own = costs.fast(costs.plan("pooler, head")).seconds
    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            arguments = TrainingArguments(
                folder,
                per_device_train_batch_size=_BATCH,
                num_train_epochs=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                bf16=half,
                store="memory",
            )
            trainer = Trainer(
                model, arguments, train_dataset=cast("Any", rows), callbacks=[Clock()], train_only="pooler, head"
            )
            trainer.remove_callback(PrinterCallback)
            started = time.perf_counter()
            trainer.train()
    finally:
        rng.restore()
    step = float(np.median(np.diff(ended)[_STEPS // 2 :]))
    return TrainerCosts(start=begun[0] - started, step=max(0.0, step - own))
