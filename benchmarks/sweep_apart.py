"""The same sweep beside a run of its own for each depth with ``fl.Trainer``, which shares nothing."""

from __future__ import annotations

from functools import partial

from benchmarks.row import Row, Target
from benchmarks.sweep import JOB, apart, make, swept

ROWS = (
    Row(
        name="sweep-apart",
        work="all 8 depths, one rate, one seed, 3 epochs, 500 rows",
        peer="an fl.Trainer for each, no store shared",
        job=JOB,
        ours=swept,
        theirs=partial(apart, library="frostline"),
        target=Target(1 / 0.45),
        task=make,
    ),
)
