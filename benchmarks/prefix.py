"""The pass that fills the store, beside the machine's own matrix product at the same shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.job import Job
from benchmarks.models import freeze_below, load_model, load_tokenizer
from benchmarks.row import Row, Target

if TYPE_CHECKING:
    from benchmarks.case import Case, Predict, Work


def _prefix(job: Job, case: Case) -> Work:
    """The engine's own pass, from tokenised rows to a filled store; its self-check stands outside."""
    import psutil
    import torch
    from transformers import DataCollatorWithPadding

    from frostline.engine.engine import Engine
    from frostline.engine.settings import EngineSettings
    from frostline.store.place import StorePlace
    from frostline.training.filling_pass import ReplayableRows, batches_of, lengths_of

    model, tokenizer = load_model(job, case), load_tokenizer()
    freeze_below(model, job.top or 0)
    rows = [dict(tokenizer(text, truncation=True)) for text in case.train.texts]
    lengths = lengths_of(rows)
    if lengths is None:
        raise ValueError("there are no rows")
    texts = ReplayableRows(rows, DataCollatorWithPadding(tokenizer), torch.device("cpu"))
    engine = Engine(model, EngineSettings())
    engine.use(StorePlace(None, psutil.virtual_memory().available))
    engine.check(texts.batch(list(range(min(job.batch, len(rows))))))

    def work() -> Predict:
        computed = sum(engine.fill(batch) for _, batch in texts.batches(batches_of(lengths)))
        if not computed:
            raise ValueError("nothing was stored: the self-check did not admit replay")
        return lambda texts: [0] * len(texts)  # nothing is learned

    return work


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
