"""Three of the rows on a GPU, in bf16, beside the peer's best settings: bf16, TF32, fused AdamW, length grouping."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks import full, head10, top2
from benchmarks.peers import frostline, transformers_trainer


def _unavailable() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


_BEST = partial(transformers_trainer, tf32=True, optim="adamw_torch_fused", train_sampling_strategy="group_by_length")

ROWS = tuple(
    replace(
        row,
        name=f"gpu-{row.name}",
        work=f"on a GPU: {row.work}, bf16",
        peer="transformers.Trainer, best settings",
        job=replace(row.job, bf16=True, cuda=True),
        ours=frostline,
        theirs=_BEST,
        target=None,
        unavailable=_unavailable,
    )
    for row in (*head10.ROWS, *top2.ROWS, *full.ROWS)
)
