"""Figures for people."""

from __future__ import annotations

import math

import pytest

from frostline.engine.cost.costs import Work, bytes_text, seconds_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (98_400_000, "98 MB"), (1.52e9, "1.5 GB"), (4e13, "40 TB")],
)
def test_sizes(size: float, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (1e-5, "under 1 ms"),
        (0.0404, "40 ms"),
        (7.16, "7.2 s"),
        (61.4, "61 s"),
        (4321, "4,321 s"),
        (math.inf, "unknown"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_work_counts_training_and_evaluation_texts() -> None:
    work = Work(rows=10, tokens=100, passes=1, evaluation_rows=5, evaluation_tokens=40)
    assert (work.rows_to_store, work.tokens_to_store) == (15, 140)


def test_a_store_with_rows_of_other_data_holds_all_of_them_at_most() -> None:
    assert Work(10, 100, 1, held_rows=5).held == 0.5
    assert Work(10, 100, 1, held_rows=500).held == 1
    assert Work(0, 0, 1, held_rows=500).held == 0
