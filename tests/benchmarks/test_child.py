from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
import torch

from benchmarks import child
from benchmarks.case import Case, Predict, Work
from benchmarks.data import Data, Split
from benchmarks.job import Job
from benchmarks.models import freeze_below, load_model
from benchmarks.peers import frostline, transformers_trainer
from benchmarks.row import rows_named
from tests.models import trainable
from tests.thinning import slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.case import Contestant

SPLIT = Split(("good film", "bad film", "fine", "awful"), (1, 0, 1, 0))
DATA = Data("made-up texts", 2, SPLIT, SPLIT)


@pytest.fixture
def options(tmp_path: Path) -> child.Options:
    return child.Options("top2", "ours", rows=3, threads=1, folder=str(tmp_path), out="")


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "load_data", lambda: DATA)
    monkeypatch.setattr(child, "_limit", lambda _row, _case, lengths: float(sum(lengths)))


def test_a_run_is_warmed_up_timed_and_scored(options: child.Options) -> None:
    ran: list[str] = []

    def contestant(_job: Job, case: Case) -> Work:
        ran.append(f"prepare {len(case.train)} {case.tiny}")

        def work() -> Predict:
            ran.append("work")
            return lambda texts: [1] * len(texts)

        return work

    (row,) = rows_named("top2")
    row = replace(row, ours=contestant, theirs=contestant)
    found = child.measure(row, options)
    assert ran == ["prepare 2 True", "work", "prepare 3 False", "work"]
    assert (found.accuracy, found.rows, found.source) == (0.5, 3, "made-up texts")
    assert found.tokens == found.limit_seconds == 4 + 4 + 3  # with [CLS] and [SEP]
    assert 0 < found.seconds < 1
    assert child.measure(row, replace(options, side="theirs")).limit_seconds is None


def test_where_nothing_is_learned_there_is_no_accuracy(options: child.Options, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows_named("prefix")
    monkeypatch.setattr("benchmarks.prefix.load_model", _load_tiny)
    found = child.measure(row, options)
    assert (found.accuracy, found.rows) == (None, 3)
    with pytest.raises(ValueError, match="no peer"):
        child.measure(row, replace(options, side="theirs"))


def _load_tiny(job: Job, case: Case) -> object:
    return load_model(job, replace(case, tiny=True))


@pytest.mark.parametrize("contestant", [frostline, transformers_trainer])
@pytest.mark.parametrize("top", [2, *slow(0, None)])
def test_both_trainers_move_the_same(contestant: Callable[[Job, Case], Work], top: int | None, tmp_path: Path) -> None:
    job, case = Job(top=top, epochs=1, learning_rate=1e-2), Case(SPLIT, 2, tmp_path, tiny=True)
    predict = contestant(job, case)()
    assert isinstance(predict, partial)
    before = load_model(job, case)
    if top is not None:
        freeze_below(before, top)
    after = dict(predict.args[0].named_parameters())
    moved = {name for name, parameter in before.named_parameters() if not torch.equal(parameter, after[name])}
    assert moved == trainable(before)
    assert len(predict(SPLIT.texts)) == len(SPLIT)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("contestant", [frostline, transformers_trainer])
def test_both_trainers_move_adapters(contestant: Callable[[Job, Case], Work], tmp_path: Path) -> None:
    job, case = Job(top=2, epochs=1, rank=2, learning_rate=1e-2), Case(SPLIT, 2, tmp_path, tiny=True)
    predict = contestant(job, case)()
    assert isinstance(predict, partial)
    before = dict(load_model(job, case).named_parameters())
    after = predict.args[0].merge_and_unload()
    moved = {name for name, parameter in after.named_parameters() if not torch.equal(parameter, before[name])}
    maps = [
        f"bert.encoder.layer.{layer}.attention.self.{name}.weight" for layer in (2, 3) for name in ("query", "value")
    ]
    assert moved == {*maps, "classifier.weight", "classifier.bias"}


@pytest.mark.slow
def test_the_tutorial_differs_by_the_import_alone(tmp_path: Path) -> None:
    (row,) = rows_named("tutorial")
    for side in (row.ours, row.theirs):
        predict = cast("Contestant", side)(row.job, Case(SPLIT.first(2), 2, tmp_path, tiny=True))()
        assert set(predict(SPLIT.texts)) <= {0, 1}
