"""The two highest layers, 3 epochs."""

from benchmarks.job import Job
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target

JOB = Job(top=2, epochs=3)

ROWS = (
    Row(
        name="top2",
        work="train layers 4-5, pooler, head, 3 epochs",
        peer="transformers.Trainer, same frozen",
        job=JOB,
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(4),
    ),
)
