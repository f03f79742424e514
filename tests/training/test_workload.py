from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader, SubsetRandomSampler
from transformers.trainer_utils import IntervalStrategy

from frostline.training.workload import Ahead, ahead_of
from tests.training import tokens

ROWS = tokens.rows(40)
LENGTHS = [len(row["input_ids"]) for row in ROWS if isinstance(row["input_ids"], list)]
TOKENS, TOKENS_OF_SIX = sum(LENGTHS), sum(LENGTHS[:6])


def ahead(loader: Any, *, done: int = 0, accumulation: int = 1, strategy: str = "no", steps: int = 20) -> Ahead:
    args = SimpleNamespace(gradient_accumulation_steps=accumulation, eval_strategy=IntervalStrategy(strategy))
    state = SimpleNamespace(max_steps=steps, num_train_epochs=4, eval_steps=5)
    return ahead_of(
        args, state, done, state.max_steps, loader, {"a": ROWS[:4], "b": ROWS[4:6]}, tokens.collate(ROWS[:8]), 1
    )


def loader(dataset: Any = ROWS, collate: Any = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=8, collate_fn=collate or tokens.padding(), **options)


@pytest.mark.parametrize(
    ("options", "passes", "first"),
    [({}, 4, True), ({"done": 5}, 3, True), ({"accumulation": 2}, 8, True), ({"steps": 4}, 0.8, False)],
)
def test_passes(options: dict[str, Any], passes: float, first: bool) -> None:
    found = ahead(loader(), **options)
    assert (found.work.rows, found.work.tokens) == (40, TOKENS)
    assert found.work.passes == pytest.approx(passes)
    assert (found.lengths is not None) == first


@pytest.mark.parametrize(
    ("strategy", "done", "evaluations"), [("no", 0, 0), ("epoch", 0, 4), ("epoch", 6, 3), ("steps", 6, 2)]
)
def test_evaluations(strategy: str, done: int, evaluations: int) -> None:
    work = ahead(loader(), strategy=strategy, done=done).work
    assert (work.evaluation_rows, work.evaluation_passes) == (6, evaluations)
    assert work.evaluation_tokens == TOKENS_OF_SIX


def test_a_collator_of_one_s_own_is_not_asked_for_rows_beforehand() -> None:
    found, known = ahead(loader(collate=tokens.collate)), ahead(loader())
    assert found.work == known.work
    assert found.lengths is None
    assert known.lengths is not None
    assert known.lengths.tolist() == LENGTHS


def test_a_sampler_that_leaves_rows_out() -> None:
    found = ahead(loader(sampler=SubsetRandomSampler(range(16))))
    assert found.lengths is None
    assert (found.work.rows, found.work.passes) == (16, 10)


def test_a_stream_has_new_rows_in_each_step() -> None:
    found = ahead(SimpleNamespace())
    assert found.lengths is None
    assert (found.work.rows, found.work.passes) == (160, 1)
