"""Columns of raw labels, read as texts, numbers, 0/1 or several labels per row.

A cell of a CSV file is always a text, so a text that is written like a number counts as one where
numbers are looked for; ``007`` and ``1,5`` are no numbers. All work is done on whole columns; only
an error looks at single rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from frostline.compat.tables import is_mixed, item_of
from frostline.data.examples import kind_of, rows_where, table_of
from frostline.data.messages import numbered, quoted
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from frostline.data.examples import Examples

SEPARATOR = "|"  # of several labels in one text
_INTEGER = "^-?(0|[1-9][0-9]{0,17})$"


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """One column of labels, or the labels within its lists.

    Attributes:
        source: Where it came from, as the user named it.
        name: The column's name.
        kind: What its values are; ``class`` means ids of named classes.
        values: The values, none of them null.
        classes: The names of the classes, for the kind ``class``.
        item: What the lists hold, for the kind ``list``, as if it were a column of its own.
        rows: The row (1-based) of each value; ``None`` if the first value is that of row 1 and so
            on.
    """

    source: str
    name: str
    kind: Literal["text", "integer", "number", "boolean", "class", "list"]
    values: pa.Array
    classes: tuple[str, ...] = ()
    item: LabelColumn | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def texts(self) -> pa.Array:
        """Returns the values as texts; whole numbers are written without a fraction.

        Raises:
            DataError: A value is blank, a class has no name (as the hidden labels of test sets), or there are lists.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.kind == "list":
            raise self.problem("holds lists where one label per row is needed", "Write one label.")
        if self.kind == "class":
            self.refuse(
                pc.or_(pc.less(self.values, 0), pc.greater_equal(self.values, len(self.classes))),
                f"holds an id outside 0 to {len(self.classes) - 1} (no label)",
                "The labels of this split may be hidden; name another split.",
            )
            return pa.array(self.classes, pa.string()).take(self.values)
        if self.kind == "boolean":
            return pc.if_else(self.values, "True", "False")
        texts = pc.cast(self.values, pa.string())
        if self.kind == "text":
            blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
            self.refuse(blank, "is empty", "Remove these rows, or give them a label.")
        return texts

    def integers(self) -> pa.Array | None:
        """Returns the values as int64, or ``None`` if some are no whole numbers."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.kind == "list" or (self.kind == "number" and self.has_fraction()):
            return None
        if self.kind == "text" and not pc.all(pc.match_substring_regex(self.values, _INTEGER), min_count=0).as_py():
            return None
        return pc.cast(self.values, pa.int64())

    def floats(self) -> NDArray[np.float64] | None:
        """Returns the values as float64, or ``None`` if some are no numbers."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.kind == "list":
            return None
        values = pc.utf8_trim_whitespace(self.values) if self.kind == "text" else self.values
        try:
            return np.asarray(pc.cast(values, pa.float64(), safe=False), dtype=np.float64)
        except pa.ArrowInvalid:
            return None

    def has_fraction(self) -> bool:
        """Tells whether all values are numbers and some are not whole."""
        import numpy as np

        numbers = self.floats() if self.kind in {"text", "number"} else None
        return numbers is not None and bool((np.isfinite(numbers) & (np.floor(numbers) != numbers)).any())

    def is_binary(self) -> bool:
        """Tells whether all values are 0 or 1, as numbers, texts or booleans."""
        import numpy as np

        numbers = self.floats() if self.kind != "class" else None
        return numbers is not None and bool(np.isin(numbers, (0, 1)).all())

    def as_binary(self) -> NDArray[np.float32]:
        """Returns shape (values,), float32, of 0 and 1.

        Raises:
            DataError: Another value is found; the message names the row.
        """
        import numpy as np

        numbers = self.floats()
        if numbers is None or not self.is_binary():
            wrong = [str(value) not in {"0", "1", "0.0", "1.0"} for value in self.values.to_pylist()]
            raise self._wrong_value(wrong, "where only 0 and 1 are labels", "Write 0 or 1.")
        return numbers.astype(np.float32)

    def as_numbers(self) -> NDArray[np.float32]:
        """Returns shape (values,), float32, finite.

        Raises:
            DataError: A value is no number, not finite, or too large; the message names the row.
        """
        import numpy as np

        numbers = self.floats()
        if numbers is None:
            wrong = [not _is_float(str(value).strip()) for value in self.values.to_pylist()]
            mend = "Write numbers with a decimal point, or name another column or problem type."
            raise self._wrong_value(wrong, "where regression needs numbers", mend)
        with np.errstate(over="ignore"):
            result = numbers.astype(np.float32)
        if not np.isfinite(result).all():
            raise self._wrong_value(~np.isfinite(result), "where finite numbers are needed", "Remove these rows.")
        return result

    def multi_hot(self, width: int | None = None) -> NDArray[np.float32] | None:
        """Returns shape (rows, labels), float32, of lists of 0 and 1, one for each label; ``None`` if there are others.

        Args:
            width: The number of labels. Without it, lists must be equally long, and one must hold a
                value twice, which a list of names or ids never does.
        """
        import pyarrow.compute as pc

        if self.item is None or self.item.kind == "text" or not self.item.is_binary():
            return None
        lengths = pc.unique(pc.list_value_length(self.values)).to_pylist()
        if len(lengths) != 1 or lengths[0] < 2 or width not in {None, lengths[0]}:
            return None
        matrix = self.item.as_binary().reshape(len(self), -1)
        could_be_ids = width is None and lengths[0] == 2 and self.item.kind == "integer"
        return None if could_be_ids and (matrix.sum(axis=1) == 1).all() else matrix

    def split(self) -> LabelColumn:
        """Returns the labels within each row, as a column with :attr:`rows` of its own.

        In a text white space around a label and empty labels are left out.
        """
        import pyarrow.compute as pc

        if self.item is not None:
            return self.item
        if self.kind != "text":
            return self
        parts = pc.split_pattern(self.values, SEPARATOR)
        texts = pc.utf8_trim_whitespace(parts.flatten())
        kept = pc.not_equal(texts, "")
        rows = pc.filter(pc.add(pc.list_parent_indices(parts), 1), kept).to_numpy()
        return LabelColumn(self.source, self.name, "text", pc.filter(texts, kept), rows=rows)

    def problem(self, what: str, mend: str) -> DataError:
        """Makes an error about the whole column."""
        return DataError(f"{self.source!r}: the label column {quoted(self.name)} {what}.\n{mend}")

    def refuse(self, mask: pa.Array, what: str, mend: str) -> None:
        """Raises an error that names the rows where a mask is true, if there are any."""
        rows = self._rows_where(mask)
        if rows:
            raise self.problem(f"{what} in {numbered('row', rows)}", mend)

    def _wrong_value(self, wrong: Sequence[bool] | NDArray[np.bool_], what: str, mend: str) -> DataError:
        """Makes an error that names the rows of wrong values, and quotes the first of them."""
        import pyarrow as pa

        mask = pa.array(wrong)
        value = self.values.filter(mask)[0].as_py()
        return self.problem(f"holds {quoted(value)} in {numbered('row', self._rows_where(mask))}, {what}", mend)

    def _rows_where(self, mask: pa.Array) -> list[int]:
        places = rows_where(mask)
        return places if self.rows is None else [int(self.rows[place - 1]) for place in places]


def read_columns(examples: Examples) -> list[LabelColumn]:
    """Returns the label columns of examples, in order.

    Raises:
        DataError: There are none, or one holds a type that no label has.
    """
    if not examples.label_columns:
        raise DataError(f"{examples.source!r}: no label columns are named.\nName some.")
    table = table_of(examples.dataset.select_columns(list(examples.label_columns)))
    return [
        _column(examples.source, name, examples.dataset.features[name], table.column(name).combine_chunks())
        for name in examples.label_columns
    ]


def _column(source: str, name: str, feature: Any, values: pa.Array, *, nested: bool = False) -> LabelColumn:
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if isinstance(feature, datasets.ClassLabel):
        return LabelColumn(source, name, "class", values, tuple(feature.names))
    listed_feature = item_of(feature)
    if listed_feature is not None and not nested:
        lists = pc.cast(values, pa.list_(kind.value_type))
        items = lists.flatten()
        rows = pc.add(pc.list_parent_indices(lists), 1).to_numpy()
        if pa.types.is_null(items.type):  # every list is empty
            items = pc.cast(items, pa.string())
        item = replace(_column(source, name, listed_feature, items, nested=True), rows=rows)
        item.refuse(pc.is_null(items), "has a list with a null", "Remove the null.")
        return LabelColumn(source, name, "list", lists, item=item)
    found = kind_of(kind) if isinstance(feature, datasets.Value) else None
    if found == "text":
        values = pc.cast(values, pa.string())
    if found is not None:
        return LabelColumn(source, name, found, values)
    what = "values of mixed types" if is_mixed(feature) else f"the type {kind}"
    raise DataError(
        f"{source!r}: the label column {quoted(name)} holds {what}.\n"
        "Labels are texts, numbers, booleans, or lists of texts or whole numbers; write one kind."
    )


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
