"""The two highest layers, beside a peer whose batches hold texts of like length."""

from functools import partial

from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target
from benchmarks.top2 import JOB

ROWS = (
    Row(
        name="top2-grouped",
        work="train layers 4-5, pooler, head, 3 epochs",
        peer="transformers.Trainer with length grouping, same frozen",
        job=JOB,
        ours=frostline,
        theirs=partial(transformers_trainer, train_sampling_strategy="group_by_length"),
        target=Target(2.2),
    ),
)
