"""Pooled features once and a regression on them, beside the usual pair of libraries for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.job import Job
from benchmarks.models import load_model, load_tokenizer
from benchmarks.peers import embedding_and_regression
from benchmarks.row import Row, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.case import Case, Predict, Work


def _features_and_regression(job: Job, case: Case) -> Work:
    """`fl.features` once over the texts, and scikit-learn's LogisticRegression on what it gives."""
    from sklearn.linear_model import LogisticRegression

    import frostline as fl

    model, tokenizer = load_model(job, case), load_tokenizer()

    def work() -> Predict:
        found = fl.features(model, tokenizer, case.train.texts)  # (rows, width)
        head = LogisticRegression(max_iter=1_000).fit(found.numpy(), case.train.labels)

        def label(texts: Sequence[str]) -> list[int]:
            labels: list[int] = head.predict(fl.features(model, tokenizer, texts).numpy()).tolist()
            return labels

        return label

    return work


ROWS = (
    Row(
        name="head1",
        work="pooled features once + head",
        peer="sentence-transformers encode + scikit-learn LogisticRegression",
        job=Job(top=0, epochs=1),
        ours=_features_and_regression,
        theirs=embedding_and_regression,
        target=Target(1.3),
    ),
)
