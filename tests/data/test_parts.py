"""Parts of a data set, drawn with a seed: balanced over the labels, or stratified."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.data.labels import MULTI, REGRESSION, LabelSchema
from frostline.data.parts import balanced, held_out
from tests.data.test_labels import examples

Expect = Any
SORTED = ["a"] * 60 + ["b"] * 30 + ["c"] * 10  # as many files are: one class after the other


def test_a_part_is_balanced_and_drawn_by_the_seed() -> None:
    rows = examples(label=SORTED)
    schema = LabelSchema.infer(rows)
    part = balanced(rows, schema, 24, 1)
    assert Counter(part.dataset["label"][:]) == {"a": 8, "b": 8, "c": 8}
    texts = part.dataset["text"][:]
    assert texts == sorted(texts, key=lambda text: int(text.split()[1]))  # in their order
    assert texts != [f"text {row}" for row in (*range(8), *range(60, 68), *range(90, 98))]  # not the first ones
    assert balanced(rows, schema, 24, 1).dataset["text"][:] == texts
    assert balanced(rows, schema, 24, 2).dataset["text"][:] != texts
    # What is rare gives all that it has.
    assert Counter(balanced(rows, schema, 70, 1).dataset["label"][:]) == {"a": 30, "b": 30, "c": 10}


def test_fewer_rows_than_labels_take_labels_by_chance() -> None:
    rows = examples(label=[f"{row % 40:02}" for row in range(200)])
    schema = LabelSchema.infer(rows)
    labels = balanced(rows, schema, 10, 3).dataset["label"][:]
    assert len(set(labels)) == 10
    assert set(labels) != {f"{row:02}" for row in range(10)}


def test_all_rows_stay_as_they_are() -> None:
    rows = examples(label=SORTED)
    schema = LabelSchema.infer(rows)
    for limit in (None, 100, 1000):
        assert balanced(rows, schema, limit, 1) is rows


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one(data_error: Expect, limit: int) -> None:
    rows = examples(label=SORTED)
    with data_error(f"limit of rows is {limit}"):
        balanced(rows, LabelSchema.infer(rows), limit, 1)


def test_each_of_several_labels_has_its_turn() -> None:
    labels = ["often"] * 80 + ["often|rare"] * 6 + ["rare"] * 4 + [""] * 10
    rows = examples(label=labels)
    part = balanced(rows, LabelSchema.infer(rows, MULTI), 15, 1)
    assert len(part) == 15
    counts = Counter(part.dataset["label"][:])
    assert counts["often"] + counts["often|rare"] >= 5
    assert counts["rare"] + counts["often|rare"] >= 5
    assert counts[""] >= 4


def test_a_regression_is_drawn_without_a_look_at_its_values() -> None:
    rows = examples(label=[0.5] * 90 + [1.25 + row for row in range(10)])
    part = balanced(rows, LabelSchema.infer(rows), 50, 1)
    assert len(part) == 50
    assert Counter(part.dataset["label"][:])[0.5] > 40


def test_what_is_held_out_is_stratified() -> None:
    rows = examples(label=SORTED)
    schema = LabelSchema.infer(rows)
    out = held_out(rows, schema, 0.1, 1)
    assert Counter(SORTED[row] for row in out) == {"a": 6, "b": 3, "c": 1}
    assert list(out) == sorted(set(out))
    assert list(held_out(rows, schema, 0.1, 1)) == list(out)
    assert list(held_out(rows, schema, 0.1, 2)) != list(out)


def test_the_last_row_of_a_class_is_not_held_out() -> None:
    labels = ["a"] * 20 + ["b", "c"]
    rows = examples(label=labels)
    out = held_out(rows, LabelSchema.infer(rows), 0.9, 1)
    assert {labels[row] for row in out} == {"a"}
    assert 18 <= len(out) <= 19


@pytest.mark.parametrize(("labels", "problem"), [(["a|b", "b", "", "a|c"] * 10, MULTI), (list(range(40)), REGRESSION)])
def test_sets_of_labels_and_values_are_held_out_too(labels: list[Any], problem: str) -> None:
    rows = examples(label=labels)
    assert len(held_out(rows, LabelSchema.infer(rows, problem), 0.2, 1)) == 8


def test_a_share_that_is_no_row(data_error: Expect) -> None:
    rows = examples(label=["a", "b", "a"])
    with data_error("10% of the 3 rows of 'd.csv'", "--eval"):
        held_out(rows, LabelSchema.infer(rows), 0.1, 1)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.floats(0.05, 0.95), st.integers(0, 9))
def test_shares_hold_for_each_class(sizes: list[int], share: float, seed: int) -> None:
    sizes = [*sizes, 40]
    labels = [str(label) for label, size in enumerate(sizes) for _ in range(size)]
    rows = examples(label=labels)
    schema = LabelSchema(problem_type="single_label_classification", names=tuple(map(str, range(len(sizes)))))
    out = held_out(rows, schema, share, seed)
    counts = np.bincount([int(labels[row]) for row in out], minlength=len(sizes))
    for count, size in zip(counts, sizes, strict=True):
        assert abs(count - size * share) <= 1
        assert count < size
