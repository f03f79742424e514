"""The part of the page of architectures on tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from frostline.checkpoints.quiet_loading import quiet
from tests.zoo.task_build import IMAGES, NOT_BUILT, SOUNDS, TEXT_TASKS, types_of
from tests.zoo.task_survey import survey_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.zoo.task_build import Task
    from tests.zoo.task_survey import TaskSurvey

BEGIN = """
## Tasks

The same for other tasks: tiny models of each type that has the task, with the top layer and what is above it training
and the rest frozen. Steps on the engine are compared with plain ones, dropout off: the loss, every tensor that the
forward gives out (at real tokens where it has one value per token), and the gradients of all that trains, within 1e-5.
`replay` is from what is stored per row; `with padding` stands where that holds for one length of padding only.

"""
_MEDIA = """
Images and sounds are of every type that transformers registers for them{missing}.

"""


def task_cell(task: Task, found: TaskSurvey) -> str:
    """What the engine does for one task on one type; where it does nothing, why."""
    if found.check is None:
        return f"no, {_plain(found.reason or 'no step can be answered')}"
    paths, checks = found.check.paths, found.check.checks
    does = []
    if paths.replay is not None:
        does.append("replay, with padding" if paths.whole and task in TEXT_TASKS else "replay")
    if paths.is_padding_free:
        does.append("padding-free")
    if paths.replay is not None:
        return ", ".join(does)
    why = next((check.how for check in checks if check.path in {"replay", "all"} and not check.admitted), found.reason)
    return "; ".join([*does, f"no replay, {_plain(why or '')}"])


def _plain(reason: str) -> str:
    """A reason without the figures of the tiny model."""
    failed = re.match(r"its code fails: (\w+)", reason)
    return (
        f"its code fails ({failed[1]})" if failed else re.sub(r"^at [^:]+: |^at .+(?= no layer )", "", reason).strip()
    )


def task_part() -> str:
    """The part of the page, made anew."""
    with quiet():
        text = _table(TEXT_TASKS)
        media = _table((IMAGES, SOUNDS))
    left_out = "".join(f"; `{name}` is not built, as {why}" for name, why in NOT_BUILT.items())
    return BEGIN + text + _MEDIA.format(missing=left_out) + media


def _table(tasks: Sequence[Task]) -> str:
    head = f"| type | {' | '.join(task.name for task in tasks)} |\n| --- |{' --- |' * len(tasks)}\n"
    found = {task.name: {name: task_cell(task, survey_task(task, name)) for name in types_of(task)} for task in tasks}
    names = sorted({name for cells in found.values() for name in cells})
    rows = (f"| `{name}` | {' | '.join(cells.get(name, '') for cells in found.values())} |\n" for name in names)
    return head + "".join(rows)


def task_cells(text: str) -> dict[tuple[str, str], str]:
    """What a page says, by task and type."""
    cells: dict[tuple[str, str], str] = {}
    tasks: list[str] = []
    for line in text.partition(BEGIN)[2].splitlines():
        row = [cell.strip() for cell in line.split("|")[1:-1]]
        if row and row[0] == "type":
            tasks = row[1:]
        elif row and row[0].startswith("`"):
            cells |= {(task, row[0].strip("`")): cell for task, cell in zip(tasks, row[1:], strict=True) if cell}
    return cells
