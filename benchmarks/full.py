"""Everything trains, 3 epochs: there is only padding to save."""

from benchmarks.job import Job
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target

ROWS = (
    Row(
        name="full",
        work="train everything, 3 epochs",
        peer="transformers.Trainer",
        job=Job(top=None, epochs=3),
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(2),
    ),
)
