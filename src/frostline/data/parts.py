"""Parts of a data set, drawn with a seed: so many rows, balanced over the labels; or a stratified share to hold out.

What a row counts for follows from the problem type: its class; each of its labels, where it may have several; for a
regression rows are drawn without a look at their values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from frostline.data.labels import MULTI, SINGLE
from frostline.data.messages import counted
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from frostline.data.examples import Examples
    from frostline.data.labels import LabelSchema

    Rows = NDArray[np.int64]


def balanced(examples: Examples, schema: LabelSchema, limit: int | None, seed: int) -> Examples:
    """Take a shuffled part in which the labels are as equally frequent as the rows allow.

    Args:
        examples: Rows with labels.
        schema: What the labels are.
        limit: Rows of the part, which keep their order; None for all.
        seed: Of the drawing.

    Raises:
        DataError: If a label cannot be read, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise DataError(f"The limit of rows is {limit}; it must be 1 or more.")
    if limit is None or limit >= len(examples):
        return examples
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(len(examples))
    labels = schema.numbers(examples)[shuffled]
    groups = [labels == index for index in np.unique(labels)] if schema.problem_type == SINGLE else []
    if schema.problem_type == MULTI:
        groups = [*(labels[:, index] > 0 for index in range(labels.shape[1])), labels.sum(axis=1) == 0]
    rows = [shuffled[group] for group in groups] or [shuffled]
    draw.shuffle(rows)  # so that chance decides which labels get the rest
    return examples.take(_in_turn(rows, limit))


def held_out(examples: Examples, schema: LabelSchema, share: float, seed: int) -> Rows:
    """Draw the rows to hold out of training, each class (or set of labels) by the same share.

    Args:
        examples: Rows with labels.
        schema: What the labels are.
        share: Of the rows, between 0 and 1.
        seed: Of the drawing.

    Returns:
        Their places, sorted. Of each class at least one row stays.

    Raises:
        DataError: If a label cannot be read, or the share of the rows is no row.
    """
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(len(examples))
    labels = schema.numbers(examples)[shuffled]
    kinds = np.zeros(len(examples), dtype=np.int64)  # a regression has one kind of row
    if schema.problem_type in {SINGLE, MULTI}:
        kinds = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    groups = [shuffled[kinds == kind] for kind in range(kinds.max() + 1)]
    exact = np.array([len(group) * share for group in groups])
    counts = np.floor(exact).astype(np.int64)
    left = round(len(examples) * share) - counts.sum()
    # What is left goes to the groups that are owed most, but never takes the last row of a class.
    for place in np.argsort(counts - exact, kind="stable"):
        if left > 0 and (schema.problem_type != SINGLE or len(groups[place]) - counts[place] > 1):
            counts[place] += 1
            left -= 1
    if not counts.sum():
        part = f"{100 * share:.4g}% of the {counted(len(examples), 'row')} of {examples.source!r}"
        raise DataError(
            f"{part} is no row that training can do without.\nHold out more, or name a file of its own with --eval."
        )
    return np.sort(np.concatenate([group[:count] for group, count in zip(groups, counts, strict=True)]))


def _in_turn(groups: Sequence[Rows], count: int) -> Rows:
    """So many rows, one of each group in turn; a row that several groups have is taken once. Sorted."""
    taken: set[int] = set()
    queues = [iter(group.tolist()) for group in groups]
    while len(taken) < count:
        for queue in list(queues):
            row = next((row for row in queue if row not in taken), None)
            if row is None:
                queues.remove(queue)
            elif len(taken) < count:
                taken.add(row)
    return np.array(sorted(taken), dtype=np.int64)
