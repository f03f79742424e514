"""Labels: what they mean to the model, and as which numbers it sees them.

Which of transformers' problem types the labels are, unless ``problem_type`` says so:

==================================================  ============================================
one column of                                       is
==================================================  ============================================
texts, integers, booleans, ``ClassLabel``           single label
numbers, some with a fractional part                regression, one value
lists of texts, integers or ``ClassLabel``          multi label, by the names in the lists
lists of 0/1, all equally long, one value repeated  multi label, multi-hot, ``LABEL_0``, ...
**several columns of**
0 and 1 (or booleans) only                          multi label, named by the columns
numbers, no column of 0 and 1 only                  regression, one value per column
==================================================  ============================================

The names of classes are sorted: by value where all are numbers, else as plain strings, so that the
numbering depends on the set of labels alone, never on the order of rows. ``ClassLabel`` keeps its
own order. Booleans are named ``False`` and ``True``.

With ``multi_label_classification`` a text is split at ``|``: ``toxic|insult`` has two labels, an
empty text none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.compat.tables import fixed_list
from frostline.data.label_columns import read_columns
from frostline.data.label_inference import (
    MULTI,
    PROBLEM_TYPES,
    REGRESSION,
    SINGLE,
    ProblemType,
    class_names,
    infer_problem_type,
    multi_label_names,
    only,
)
from frostline.data.messages import counted, listed, quoted, suggestion
from frostline.data.quiet_datasets import quiet_datasets
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import datasets
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from frostline.data.examples import Examples
    from frostline.data.label_columns import LabelColumn

__all__ = ["MULTI", "PROBLEM_TYPES", "REGRESSION", "SINGLE", "LabelSchema", "ProblemType"]

_SHOWN_UNKNOWN = 5


@dataclass(frozen=True)
class LabelSchema:
    """The labels that a model knows.

    Attributes:
        problem_type: One of transformers' problem types; it decides the loss.
        names: The classes in the order of their ids; for several regression values the names of
            their columns; empty for one regression value.
    """

    problem_type: ProblemType
    names: tuple[str, ...]

    @property
    def num_labels(self) -> int:
        """The width of the model's output."""
        return len(self.names) or 1

    @property
    def config_fields(self) -> dict[str, Any]:
        """What a transformers config is told of the labels."""
        names = self.names or ("LABEL_0",)
        return {
            "num_labels": self.num_labels,
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "problem_type": self.problem_type,
        }

    @property
    def is_generic(self) -> bool:
        """Whether the names are the placeholders ``LABEL_0``, ``LABEL_1``, ... of transformers."""
        return bool(self.names) and all(name == f"LABEL_{index}" for index, name in enumerate(self.names))

    @classmethod
    def infer(cls, examples: Examples, problem_type: str | None = None) -> LabelSchema:
        """Finds out what the labels of a training set are.

        Args:
            examples: Rows with labels.
            problem_type: One of :data:`PROBLEM_TYPES` if it is not to be inferred.

        Raises:
            DataError: There are no label columns, fewer than two classes, nearly as many classes as
                rows, or the labels do not fit the problem type.
        """
        if problem_type is not None and problem_type not in PROBLEM_TYPES:
            raise DataError(
                f"There is no problem type {quoted(problem_type)}; there are "
                f"{listed(PROBLEM_TYPES)}.{suggestion(problem_type, PROBLEM_TYPES)}"
            )
        columns = read_columns(examples)
        problem = problem_type or infer_problem_type(columns)
        if problem == REGRESSION:
            for column in columns:
                column.as_numbers()
            names = tuple(column.name for column in columns) if len(columns) > 1 else ()
            return cls(REGRESSION, names)
        if problem == MULTI:
            return cls(MULTI, multi_label_names(columns))
        return cls(SINGLE, class_names(only(columns)))

    @classmethod
    def from_config(cls, config: Any) -> LabelSchema:
        """Takes the labels from the config of a model that is trained already.

        Args:
            config: A :class:`transformers.PretrainedConfig`. Without a problem type, one label
                means regression and several mean single label, as for transformers.

        Raises:
            DataError: The config's labels contradict each other.
        """
        names = tuple(str(name) for _, name in sorted(config.id2label.items()))
        problem = config.problem_type
        if problem is None:
            problem = REGRESSION if len(names) == 1 else SINGLE
        if problem not in PROBLEM_TYPES:
            raise DataError(
                f"The model's config has the problem type {quoted(problem)}; there are {listed(PROBLEM_TYPES)}."
            )
        if len(set(names)) < len(names):
            raise DataError(f"The model's config names a label twice: {listed(names)}.\nMend its id2label.")
        return cls(problem, () if problem == REGRESSION and len(names) == 1 else names)

    def encode(self, examples: Examples) -> datasets.Dataset:
        """Turns raw labels into numbers.

        Args:
            examples: Rows with labels, of training or of evaluation.

        Returns:
            The texts and a column ``labels``, instead of the label columns. Per row: an int64 class
            id (single label), a list of ``num_labels`` float32 of 0 and 1 (multi label), a float32
            or a list of ``num_labels`` float32 (regression).

        Raises:
            DataError: A label is unknown, missing, or no number where one is needed.
        """
        import pyarrow as pa
        from datasets import Value

        numbers = self.numbers(examples)
        feature: Any = Value("int64" if self.problem_type == SINGLE else "float32")
        array = pa.array(numbers.reshape(-1))
        if numbers.ndim == 2:
            feature = fixed_list(feature, self.num_labels)
            array = pa.FixedSizeListArray.from_arrays(array, self.num_labels)
        texts = examples.dataset.remove_columns(list(examples.label_columns))
        with quiet_datasets():
            labelled: datasets.Dataset = texts.add_column("labels", array, feature=feature)
        return labelled

    def numbers(self, examples: Examples) -> NDArray[np.int64 | np.float32]:
        """Returns the labels as numbers, of shape (rows,) int64 or float32, or (rows, num_labels) float32.

        Raises:
            DataError: As :meth:`encode`.
        """
        import numpy as np

        columns = read_columns(examples)
        if self.problem_type == SINGLE:
            return self._ids(only(columns))
        if self.problem_type == MULTI and len(columns) == 1:
            return self._multi_hot(columns[0])
        if self.problem_type == MULTI:
            return np.stack([column.as_binary() for column in self._ordered(columns)], axis=1)
        values = [column.as_numbers() for column in self._ordered(columns)]
        return np.stack(values, axis=1) if self.names else values[0]

    def _multi_hot(self, column: LabelColumn) -> NDArray[np.float32]:
        import numpy as np

        if self.names == (column.name,) and column.is_binary():
            return column.as_binary().reshape(-1, 1)
        matrix = column.multi_hot(self.num_labels) if self.is_generic else None
        if matrix is not None:
            return matrix
        labels = column.split()
        places = np.arange(len(column)) if labels.rows is None else labels.rows - 1
        result = np.zeros((len(column), self.num_labels), dtype=np.float32)
        result[places, self._ids(labels)] = 1
        return result

    def _ids(self, column: LabelColumn) -> NDArray[np.int64]:
        """Returns shape (values,), int64: the id of each value.

        Raises:
            DataError: A value is none of the known classes.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        numbers = column.integers() if self.is_generic else None
        if numbers is not None:  # placeholder names: numbers are ids
            unknown = pc.or_(pc.less(numbers, 0), pc.greater_equal(numbers, self.num_labels))
            ids = numbers
        else:
            ids = pc.index_in(column.texts(), value_set=pa.array(self.names, pa.string()))
            unknown = pc.is_null(ids)
        if pc.any(unknown, min_count=0).as_py():
            raise self._unknown(column, unknown)
        return np.asarray(ids, dtype=np.int64)

    def _unknown(self, column: LabelColumn, mask: pa.Array) -> DataError:
        counts = Counter(column.texts().filter(mask).to_pylist()).most_common()
        shown = ", ".join(f"{quoted(name)} ({counted(rows, 'row')})" for name, rows in counts[:_SHOWN_UNKNOWN])
        more = len(counts) - _SHOWN_UNKNOWN
        return column.problem(
            "holds labels that are none of those of training: " + (f"{shown} and {more} more" if more > 0 else shown),
            f"Those are {listed(self.names)}.{suggestion(counts[0][0], self.names)}",
        )

    def _ordered(self, columns: Sequence[LabelColumn]) -> Sequence[LabelColumn]:
        """Puts columns in the order of the names; placeholder names take them as they come."""
        by_name = {column.name: column for column in columns}
        if set(by_name) == set(self.names):
            return [by_name[name] for name in self.names]
        if len(columns) == self.num_labels and (self.is_generic or not self.names):
            return columns
        trained = f"for {listed(self.names)}" if self.names else "for one value"
        raise DataError(
            f"{columns[0].source!r}: the label columns are {listed(by_name)}, but the "
            f"model was trained {trained}.\nName the label columns of training."
        )
