"""A loop of one's own in ``fl.fast``, beside ``fl.Trainer`` on the same work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.models import SEED, load_model, load_tokenizer, predict
from benchmarks.peers import frostline
from benchmarks.row import Row, Target
from benchmarks.top2 import JOB

if TYPE_CHECKING:
    from benchmarks.case import Case, Predict, Work
    from benchmarks.job import Job


def _loop(job: Job, case: Case) -> Work:
    """What ``fl.Trainer`` does in its default settings, by hand."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import DataCollatorWithPadding

    import frostline as fl

    model, tokenizer = load_model(job, case), load_tokenizer()

    def work() -> Predict:
        rows = [
            dict(tokenizer(text, truncation=True)) | {"labels": label}
            for text, label in zip(case.train.texts, case.train.labels, strict=True)
        ]
        loader: DataLoader[Any] = DataLoader(
            rows,  # type: ignore[arg-type]
            job.batch,
            shuffle=True,
            collate_fn=DataCollatorWithPadding(tokenizer),
            generator=torch.Generator().manual_seed(SEED),
        )
        fl.train_only(model, str(job.train_only))
        trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trains, lr=job.learning_rate, weight_decay=0.0)
        steps = job.epochs * len(loader)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        model.train()
        with fl.fast(model, passes=job.epochs):
            for _ in range(job.epochs):
                for batch in loader:
                    model(**batch).loss.backward()
                    torch.nn.utils.clip_grad_norm_(trains, 1.0)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
        return partial(predict, model, tokenizer)

    return work


ROWS = (
    Row(
        name="loop",
        work="train layers 4-5, pooler, head, 3 epochs, in a loop of one's own within fl.fast",
        peer="fl.Trainer",
        job=JOB,
        ours=_loop,
        theirs=frostline,
        target=Target(0.9),
    ),
)
