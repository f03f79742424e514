"""The highest layer, 10 epochs."""

from benchmarks.job import Job
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target

ROWS = (
    Row(
        name="top1",
        work="train layer 5, pooler, head, 10 epochs",
        peer="transformers.Trainer, same frozen",
        job=Job(top=1, epochs=10),
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(12),
    ),
)
