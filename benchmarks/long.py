"""Texts that fill 512 tokens, so there is no padding to save."""

from benchmarks.job import Job
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target

ROWS = (
    Row(
        name="long",
        work="texts of 512 tokens, train layers 4-5, pooler, head, 3 epochs, 256 rows",
        peer="transformers.Trainer, same frozen",
        job=Job(top=2, epochs=3, rows=256, fill=512),
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(2),
    ),
)
