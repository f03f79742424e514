"""The two highest layers in mixed precision, where the processor has the instructions."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target
from benchmarks.top2 import JOB


def _unavailable() -> str | None:
    import torch

    known = torch.cpu.get_capabilities()
    if known.get("avx512_bf16") or known.get("amx_bf16"):
        return None
    return "the processor has neither AVX512-BF16 nor AMX"


ROWS = (
    Row(
        name="bf16",
        work="train layers 4-5, pooler, head, 3 epochs, bf16",
        peer="transformers.Trainer with bf16, same frozen",
        job=replace(JOB, bf16=True),
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(4),
        unavailable=_unavailable,
    ),
)
