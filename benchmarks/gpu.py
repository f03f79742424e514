"""Three of the rows on a GPU, in bf16; the peer has length grouping too, and its default, the fused AdamW."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks import full, head10, top2
from benchmarks.peers import frostline, transformers_trainer


def _unavailable() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


ROWS = tuple(
    replace(
        row,
        name=f"gpu-{row.name}",
        work=f"on a GPU: {row.work}, bf16",
        peer="transformers.Trainer with bf16 and length grouping, same frozen",
        job=replace(row.job, bf16=True, cuda=True),
        ours=frostline,
        theirs=partial(transformers_trainer, train_sampling_strategy="group_by_length"),
        target=None,
        unavailable=_unavailable,
    )
    for row in (*head10.ROWS, *top2.ROWS, *full.ROWS)
)
