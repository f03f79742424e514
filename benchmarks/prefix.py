"""The pass that fills the store, beside the machine's own matrix product at the same shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.job import Job
from benchmarks.limit import PREFIX_BATCH
from benchmarks.models import load_model, load_tokenizer
from benchmarks.row import Row, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from benchmarks.case import Case, Predict, Work


def _prefix(job: Job, case: Case) -> Work:
    model, tokenizer = load_model(job, case).eval(), load_tokenizer()
    layers = model.bert.encoder.layer
    model.bert.encoder.layer = layers[: len(layers) - (job.top or 0)]
    rows = [dict(tokenizer(text, truncation=True)) for text in case.train.texts]

    def work() -> Predict:
        _prefix_pass(model, tokenizer, rows)
        return lambda texts: [0] * len(texts)  # nothing is learned

    return work


def _prefix_pass(model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]) -> None:
    """The frozen layers, once over all rows, in batches of like length."""
    import torch

    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    with torch.no_grad():
        for start in range(0, len(ordered), PREFIX_BATCH):
            model.bert(**tokenizer.pad(ordered[start : start + PREFIX_BATCH], return_tensors="pt"))


ROWS = (
    Row(
        name="prefix",
        work="layers 0-3 once over 2,000 rows",
        peer="the machine's own matrix product at these shapes",
        job=Job(top=2, epochs=0),
        ours=_prefix,
        theirs=None,
        figure="share",
        target=Target(0.85),
    ),
)
