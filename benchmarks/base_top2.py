"""A model of BERT-base's size, randomly initialised: for speed only, it learns next to nothing."""

from benchmarks.job import Job
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target

ROWS = (
    Row(
        name="base-top2",
        work="BERT-base (random), train layers 10-11 of 12, pooler, head, 3 epochs, 500 rows",
        peer="transformers.Trainer, same frozen",
        job=Job(top=2, epochs=3, rows=500, model="base"),
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(5),
    ),
)
