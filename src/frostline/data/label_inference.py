"""Inferring the problem type and the names of classes from columns of raw labels."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from frostline.data.messages import counted, listed, quoted
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from frostline.data.label_columns import LabelColumn

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

SINGLE: ProblemType = "single_label_classification"
MULTI: ProblemType = "multi_label_classification"
REGRESSION: ProblemType = "regression"
PROBLEM_TYPES: tuple[ProblemType, ...] = (SINGLE, MULTI, REGRESSION)

_ROWS_TO_JUDGE = 20  # with fewer rows, many classes prove nothing


def infer_problem_type(columns: Sequence[LabelColumn]) -> ProblemType:
    """Infers the problem type; the table in :mod:`frostline.data.labels` says how.

    Raises:
        DataError: Several columns hold something else than 0/1 or numbers.
    """
    if len(columns) == 1:
        if columns[0].kind == "list":
            return MULTI
        return REGRESSION if columns[0].has_fraction() else SINGLE
    binary = [column for column in columns if column.is_binary()]
    if len(binary) == len(columns):
        return MULTI
    if not binary and all(c.kind != "class" and c.floats() is not None for c in columns):
        return REGRESSION
    other = next(column for column in columns if column not in binary)
    names = listed(column.name for column in columns)
    if other.floats() is None or other.kind == "class":
        raise other.problem(
            f"is one of several ({names}), but does not hold numbers",
            "Several label columns hold 0 and 1 (labels that apply or not) or numbers (regression);"
            " name one column otherwise.",
        )
    raise other.problem(
        f"holds other numbers than 0 and 1, unlike {listed(column.name for column in binary)}",
        f"Mend it, or set the problem type to {quoted(REGRESSION)}.",
    )


def class_names(column: LabelColumn) -> tuple[str, ...]:
    """Returns the classes of a single-label column in the order of their ids.

    Raises:
        DataError: There are fewer than two, or nearly as many as rows.
    """
    import pyarrow.compute as pc

    texts = column.texts()
    found = pc.unique(texts)
    if len(found) < 2:
        raise column.problem(
            f"holds one class only, {quoted(found[0])}",
            "Training needs at least two; name another column, or use more rows.",
        )
    if len(texts) >= _ROWS_TO_JUDGE and len(found) > len(texts) / 2:
        raise column.problem(
            f"holds nearly one value per row ({len(found):,} classes in "
            f"{counted(len(texts), 'row')}, e.g. {listed(found.to_pylist()[:2])})",
            f"Name the right column, or set the problem type to {quoted(REGRESSION)} for numbers.",
        )
    return column.classes or _told_apart(column, sorted_names(found))


def multi_label_names(columns: Sequence[LabelColumn]) -> tuple[str, ...]:
    """Returns the labels of rows with several labels, in the order of their ids.

    Raises:
        DataError: There are none, or several columns hold something else than 0 and 1.
    """
    import pyarrow.compute as pc

    if len(columns) > 1 or columns[0].is_binary():
        for column in columns:
            column.as_binary()
        return tuple(column.name for column in columns)
    column = columns[0]
    matrix = column.multi_hot()
    if matrix is not None:
        return tuple(f"LABEL_{index}" for index in range(matrix.shape[1]))
    labels = column.split()
    if column.kind == "list" and labels.kind == "number":
        raise column.problem(
            "holds lists of numbers with a decimal point",
            "Write lists of names, lists of 0 and 1, or a column per value for regression.",
        )
    if not len(labels):
        raise column.problem("holds no label in any row", "Name another column, or use more rows.")
    return labels.classes or _told_apart(column, sorted_names(pc.unique(labels.texts())))


def _told_apart(column: LabelColumn, names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names; an error where two of them differ in blanks at their ends only."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.strip(), name)
        if other != name:
            raise column.problem(
                f"holds {quoted(other)} and {quoted(name)}, which differ in blanks at their ends only",
                "Take the blanks out of the table.",
            )
    return names


def sorted_names(names: pa.Array) -> tuple[str, ...]:
    """Sorts different names by value where all are numbers, else as plain strings."""
    texts: list[str] = names.to_pylist()
    with suppress(ValueError):
        values = {text: float(text) for text in texts}
        if all(map(math.isfinite, values.values())):
            return tuple(sorted(texts, key=lambda text: (values[text], text)))
    return tuple(sorted(texts))


def only(columns: Sequence[LabelColumn]) -> LabelColumn:
    """Returns the one column that a single label needs.

    Raises:
        DataError: There are several.
    """
    if len(columns) > 1:
        raise DataError(
            f"{columns[0].source!r}: {len(columns)} label columns are named "
            f"({listed(column.name for column in columns)}), but each row has one label.\n"
            "Name one column, or set the problem type."
        )
    return columns[0]
