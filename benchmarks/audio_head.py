"""Audio classification: spoken digits, and a wav2vec2-base of random weights, of which the head trains."""

from __future__ import annotations

import wave
from typing import Any, cast

from benchmarks import task
from benchmarks.job import Job
from benchmarks.models import SEED
from benchmarks.row import Row, Target

_LONGEST = 16_000  # samples: one second


def make(rows: int, tiny: bool) -> task.Task:
    """wav2vec2-base, whose masks and left-out layers are switched off: both are drawn in the frozen part."""
    import numpy as np
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification, default_data_collator, set_seed

    files = sorted((task.SHARED / "fsdd" / "train").glob("*/*.wav"), key=lambda file: (file.stem[::-1], file.stem))
    made: list[dict[str, Any]] = []
    for file in files[:rows]:
        with wave.open(str(file)) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype=np.int16)
        values = torch.tensor(samples.astype(np.float32).repeat(2) / 2**15)[:_LONGEST]  # from 8 to 16 kHz
        made.append(
            {"input_values": torch.nn.functional.pad(values, (0, _LONGEST - len(values))), "labels": int(file.stem[0])}
        )
    size: dict[str, Any] = {}
    if tiny:
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        size |= {"conv_dim": (16,) * 7, "num_conv_pos_embedding_groups": 2}
    set_seed(SEED)
    config = cast("Any", Wav2Vec2Config)(**size, num_labels=10, apply_spec_augment=False, layerdrop=0.0)
    return task.Task(
        model=Wav2Vec2ForSequenceClassification(config),
        freeze="backbone",
        rows=made,
        collate=default_data_collator,
        source="spoken digits (FSDD), padded to a second",
        tokens=len(made) * _LONGEST,
    )


ROWS = (
    Row(
        name="audio-head",
        work="audio classification, wav2vec2-base, train the head, 3 epochs",
        peer="transformers.Trainer, same frozen",
        job=Job(top=0, epochs=3, rows=128),
        task=make,
        ours=task.frostline,
        theirs=task.transformers_trainer,
        target=Target(3),
    ),
)
