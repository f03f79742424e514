"""Peak memory of the two highest layers' training, above what is resident as it begins (libraries and model)."""

from __future__ import annotations

from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import Row, Target
from benchmarks.top2 import JOB
from frostline.base.peak import peak_memory


def _unavailable() -> str | None:
    with peak_memory() as peak:
        pass
    return None if peak.bytes else "the system does not tell the peak memory of a process"


ROWS = (
    Row(
        name="memory",
        work="peak memory, train layers 4-5, pooler, head, 3 epochs",
        peer="transformers.Trainer, same frozen",
        job=JOB,
        ours=frostline,
        theirs=transformers_trainer,
        figure="memory",
        target=Target(0.7, at_most=True),
        unavailable=_unavailable,
    ),
)
