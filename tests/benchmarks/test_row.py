from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import benchmarks
import frostline as fl
from benchmarks.models import freeze_below, with_lora
from benchmarks.row import NAMES, Row, Target, all_rows, rows_named
from tests.models import tiny, trainable


def test_every_name_has_its_file_and_rows() -> None:
    names = [row.name for row in all_rows()]
    assert len(names) == len(set(names))
    for name in NAMES:
        rows = [row.name for row in rows_named(name)]
        assert rows == [name] or (name == "gpu" and all(row.startswith("gpu-") for row in rows))
        assert (Path(str(benchmarks.__file__)).parent / f"{name.replace('-', '_')}.py").is_file()


@pytest.mark.parametrize(
    ("target", "ratio", "met"),
    [
        (Target(4), 4.0, True),
        (Target(4), 3.99, False),
        (Target(0.7, at_most=True), 0.7, True),
        (Target(0.7, at_most=True), 0.71, False),
    ],
)
def test_a_target_is_reached_at_its_value(target: Target, ratio: float, met: bool) -> None:
    assert target.met(ratio) is met


def test_a_target_in_words() -> None:
    assert str(Target(1.3)) == "≥ 1.3"
    assert str(Target(0.7, at_most=True)) == "≤ 0.7"


def frozen_by_hand(row: Row) -> Any:
    model = tiny("bert", num_hidden_layers=4)
    if row.job.rank is not None:
        return with_lora(model, row.job.top or 0, row.job.rank)
    freeze_below(model, row.job.top or 0)
    return model


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("row", [row for row in all_rows() if row.job.top is not None], ids=lambda row: row.name)
def test_both_sides_freeze_the_same(row: Row) -> None:
    """The peer freezes by hand what Frostline's selector names."""
    by_hand = frozen_by_hand(row)
    by_plan = frozen_by_hand(row) if row.job.rank is not None else tiny("bert", num_hidden_layers=4)
    fl.train_only(by_plan, str(row.job.train_only))
    assert trainable(by_hand) == trainable(by_plan)
