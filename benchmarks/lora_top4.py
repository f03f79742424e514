"""LoRA in the four highest layers, 3 epochs."""

from benchmarks.job import Job
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target

ROWS = (
    Row(
        name="lora-top4",
        work="train LoRA of rank 8 in layers 2-5, head, 3 epochs",
        peer="transformers.Trainer, same PEFT model",
        job=Job(top=4, epochs=3, rank=8, learning_rate=1e-3),
        ours=frostline,
        theirs=transformers_trainer,
        target=Target(3),
    ),
)
