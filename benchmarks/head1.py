"""Pooled features once and a head on them, beside the usual pair of libraries for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.job import Job
from benchmarks.peers import embedding_and_regression, frostline
from benchmarks.row import Row, Target

if TYPE_CHECKING:
    from benchmarks.case import Case, Work


def _features_and_head(job: Job, case: Case) -> Work:
    """The head's 10 epochs run on pooled features, which `fl.Trainer` computes once and stores."""
    return frostline(job, case)


ROWS = (
    Row(
        name="head1",
        work="pooled features once + head",
        peer="sentence-transformers encode + scikit-learn LogisticRegression",
        job=Job(top=0, epochs=10, learning_rate=1e-3),
        ours=_features_and_head,
        theirs=embedding_and_regression,
        target=Target(1.3),
    ),
)
