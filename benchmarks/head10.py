"""Pooler and head, 10 epochs: everything beneath is computed once."""

from benchmarks.job import Job
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target

ROWS = (
    Row(
        name="head10",
        work="train pooler + head, 10 epochs",
        peer="transformers.Trainer, same parameters frozen",
        job=Job(top=0, epochs=10, learning_rate=1e-3),
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(25),
    ),
)
