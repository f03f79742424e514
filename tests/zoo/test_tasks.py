"""Steps on the engine are the plain ones, whatever the task: on every type that has it."""

from __future__ import annotations

import pytest
from transformers import PvtConfig

from tests.thinning import one_in
from tests.zoo.page import PAGE, is_of_this_version
from tests.zoo.task_build import LENGTHS, NOT_BUILT, TASKS, types_of
from tests.zoo.task_page import task_cell, task_cells
from tests.zoo.task_survey import survey_task

EVERY = [(name, model_type) for name, task in TASKS.items() for model_type in types_of(task)]
SAMPLE = 13
BOUND = 1e-5
# Rounding in large activations turns a ReLU over; tests/zoo/test_engine.py has it in double precision.
ROUNDED = {"mobilebert": 1e-3}


@pytest.mark.parametrize(("task", "model_type"), one_in(SAMPLE, EVERY))
def test_steps_are_the_plain_ones_and_as_the_page_says(task: str, model_type: str) -> None:
    if model_type == "pvt" and PvtConfig(num_labels=3).num_labels != 3:
        pytest.skip("PVT forgets its number of labels in transformers 5.12")
    found = survey_task(TASKS[task], model_type)
    assert found.outputs <= BOUND, found
    assert found.gradients <= ROUNDED.get(model_type, BOUND), found
    written = task_cells(PAGE.read_text(encoding="utf-8"))
    assert not is_of_this_version() or written[task, model_type] == task_cell(TASKS[task], found), (
        "run make architectures"
    )


def test_a_bias_of_positions_with_as_many_heads_as_rows_are_tried() -> None:
    found = survey_task(TASKS["token classification"], "t5")
    assert found.check is not None
    assert found.check.boundary == "layer 3"
    assert found.computed == len(LENGTHS)


def test_the_page_has_a_cell_for_each() -> None:
    cells = task_cells(PAGE.read_text(encoding="utf-8"))
    assert set(cells) == set(EVERY)
    stored = [place for place, cell in cells.items() if cell.startswith("replay")]
    assert len(stored) >= 0.9 * len(EVERY)
    assert all(f"`{name}` is not built" in PAGE.read_text(encoding="utf-8") for name in NOT_BUILT)
