"""Causal language modelling: texts packed into blocks, a Llama of 60 million random weights, the two highest layers."""

from __future__ import annotations

from itertools import chain
from typing import Any

from benchmarks import task
from benchmarks.data import load_data
from benchmarks.job import Job
from benchmarks.models import SEED, load_tokenizer
from benchmarks.row import Row, Target

_BLOCK = 128


def make(rows: int, tiny: bool) -> task.Task:
    """Eight layers, 512 wide; blocks of 128 tokens without padding, as the task guide of transformers makes them."""
    from transformers import LlamaConfig, LlamaForCausalLM, default_data_collator, set_seed

    tokenizer, data = load_tokenizer(), load_data()
    ids = list(chain.from_iterable(tokenizer(list(data.train.texts))["input_ids"]))
    blocks = [ids[at : at + _BLOCK] for at in range(0, len(ids) - _BLOCK, _BLOCK)][:rows]
    size: dict[str, Any] = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
    size |= {"intermediate_size": 1_536}
    if tiny:
        size = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    set_seed(SEED)
    return task.Task(
        model=LlamaForCausalLM(LlamaConfig(**size, vocab_size=tokenizer.vocab_size)),
        freeze="embeddings, layers[:-2]",
        rows=[{"input_ids": block, "attention_mask": [1] * _BLOCK, "labels": block} for block in blocks],
        collate=default_data_collator,
        source=f"{data.source}, in blocks of {_BLOCK} tokens",
        tokens=len(blocks) * _BLOCK,
    )


ROWS = (
    Row(
        name="clm-top2",
        work="causal language modelling, Llama of 60M, train layers 6-7, norm and head, 3 epochs",
        peer="transformers.Trainer, same frozen",
        job=Job(top=2, epochs=3, rows=96, batch=8),
        task=make,
        ours=task.frostline,
        theirs=task.transformers_trainer,
        target=Target(2),
    ),
)
