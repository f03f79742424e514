"""Columns of raw labels, read as texts, numbers, 0/1 or several labels per row.

A cell of a CSV file is always a text, so a text that is written like a number counts as one where
numbers are looked for; ``007`` and ``1,5`` are no numbers. All work is done on whole columns; only
an error looks at single rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from frostline.compat.tables import is_mixed, item_of
from frostline.data.examples import row_numbers, table_of
from frostline.data.messages import numbered, quoted, quoted_path
from frostline.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from frostline.data.examples import Examples

Kind = Literal["text", "integer", "number", "boolean", "class", "list"]

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
    kind: Kind
    values: pa.Array
    classes: tuple[str, ...] = ()
    item: LabelColumn | None = None
    rows: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def texts(self) -> pa.Array:
        """Returns the values as texts; whole numbers are written without a fraction.

        Raises:
            DataError: A value is blank, a class has no name, or there are lists.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.kind == "list":
            raise self.problem("holds lists where one label per row is needed", "Write one label.")
        if self.kind == "class":
            return pa.array(self.classes, pa.string()).take(self.class_ids())
        if self.kind == "boolean":
            return pc.if_else(self.values, "True", "False")
        texts = pc.cast(self.values, pa.string())
        if self.kind == "text":
            blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
            self.refuse(blank, "is empty", "Remove these rows, or give them a label.")
        return texts

    def class_ids(self) -> pa.Array:
        """Returns the ids of named classes.

        Raises:
            DataError: An id is out of range, as the hidden labels of test sets are.
        """
        import pyarrow.compute as pc

        outside = pc.or_(pc.less(self.values, 0), pc.greater_equal(self.values, len(self.classes)))
        self.refuse(
            outside,
            f"holds an id outside 0 to {len(self.classes) - 1} (no label)",
            "The labels of this split may be hidden; name another split.",
        )
        return self.values

    def integers(self) -> pa.Array | None:
        """Returns the values as int64, or ``None`` if some are no whole numbers."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.kind == "text":
            whole = pc.match_substring_regex(self.values, _INTEGER)
            if not pc.all(whole, min_count=0).as_py():
                return None
        if self.kind == "list" or (self.kind == "number" and self.has_fraction()):
            return None
        return pc.cast(self.values, pa.int64())

    def floats(self) -> pa.Array | None:
        """Returns the values as float64, or ``None`` if some are no numbers."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.kind == "list":
            return None
        values = pc.utf8_trim_whitespace(self.values) if self.kind == "text" else self.values
        try:
            return pc.cast(values, pa.float64(), safe=False)
        except pa.ArrowInvalid:
            return None

    def has_fraction(self) -> bool:
        """Tells whether all values are numbers and some are not whole."""
        import pyarrow.compute as pc

        numbers = self.floats() if self.kind in {"text", "number"} else None
        if numbers is None:
            return False
        fraction = pc.and_(pc.is_finite(numbers), pc.not_equal(pc.floor(numbers), numbers))
        return bool(pc.any(fraction, min_count=0).as_py())

    def is_binary(self) -> bool:
        """Tells whether all values are 0 or 1, as numbers, texts or booleans."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.kind == "class":
            return False
        numbers = self.floats()
        if numbers is None:
            return False
        among = pc.is_in(numbers, value_set=pa.array([0.0, 1.0]))
        return bool(pc.all(among, min_count=0).as_py())

    def as_binary(self) -> NDArray[np.float32]:
        """Returns shape (values,), float32, of 0 and 1.

        Raises:
            DataError: Another value is found; the message names the row.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        numbers = self.floats()
        if numbers is None or not self.is_binary():
            texts = pa.array([str(value) for value in self.values.to_pylist()], pa.string())
            wrong = pc.invert(pc.is_in(texts, value_set=pa.array(["0", "1", "0.0", "1.0"])))
            raise self.wrong_value(wrong, "where only 0 and 1 are labels", "Write 0 or 1.")
        return np.asarray(numbers, dtype=np.float32)

    def as_numbers(self) -> NDArray[np.float32]:
        """Returns shape (values,), float32, finite.

        Raises:
            DataError: A value is no number, not finite, or too large; the message names the row.
        """
        import numpy as np
        import pyarrow as pa

        numbers = self.floats()
        if numbers is None:
            texts = [str(value).strip() for value in self.values.to_pylist()]
            wrong = pa.array([not _is_float(text) for text in texts])
            mend = "Write numbers with a decimal point, or name another column or problem type."
            raise self.wrong_value(wrong, "where regression needs numbers", mend)
        with np.errstate(over="ignore"):
            result = np.asarray(numbers, dtype=np.float64).astype(np.float32)
        if not np.isfinite(result).all():
            wrong = pa.array(~np.isfinite(result))
            raise self.wrong_value(wrong, "where finite numbers are needed", "Remove these rows.")
        return result

    def is_multi_hot(self, width: int | None = None) -> bool:
        """Tells whether the lists hold 0 and 1, one for each label, and no names.

        Args:
            width: The number of labels. Without it, lists must be equally long, and one must hold a
                value twice, which a list of names or ids never does.
        """
        import pyarrow.compute as pc

        if self.item is None or self.item.kind == "text" or not self.item.is_binary():
            return False
        lengths = pc.unique(pc.list_value_length(self.values)).to_pylist()
        if len(lengths) != 1 or lengths[0] < 2:
            return False
        if width is not None:
            return bool(lengths[0] == width)
        if lengths[0] > 2 or self.item.kind != "integer":
            return True
        return bool((self.as_matrix().sum(axis=1) != 1).any())

    def as_matrix(self) -> NDArray[np.float32]:
        """Returns shape (rows, labels), float32, of multi-hot lists."""
        if self.item is None:
            raise AssertionError(self.kind)
        return self.item.as_binary().reshape(len(self), -1)

    def split(self, separator: str | None) -> LabelColumn:
        """Returns the labels within each row, as a column with :attr:`rows` of its own.

        Args:
            separator: What separates labels in a text; ``None`` if a text is one label. White space
                around a label and empty labels are left out.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.item is not None:
            return self.item
        if self.kind != "text":
            return self
        parts = (
            pc.split_pattern(self.values, separator)
            if separator
            else pa.FixedSizeListArray.from_arrays(self.values, 1).cast(pa.list_(pa.string()))
        )
        texts = pc.utf8_trim_whitespace(parts.flatten())
        kept = pc.greater(pc.utf8_length(texts), 0)
        rows = pc.filter(pc.add(pc.list_parent_indices(parts), 1), kept).to_numpy()
        return LabelColumn(self.source, self.name, "text", pc.filter(texts, kept), rows=rows)

    def problem(self, what: str, mend: str) -> DataError:
        """Makes an error about the whole column."""
        return DataError(f"{quoted_path(self.source)}: the label column {quoted(self.name)} {what}.\n{mend}")

    def refuse(self, mask: pa.Array, what: str, mend: str) -> None:
        """Raises an error that names the rows where a mask is true, if there are any."""
        rows, total = self.row_numbers(mask)
        if total:
            raise self.problem(f"{what} in {numbered('row', rows, total)}", mend)

    def wrong_value(self, mask: pa.Array, what: str, mend: str) -> DataError:
        """Makes an error that names the rows where a mask is true, and quotes the first value."""
        import pyarrow.compute as pc

        rows, total = self.row_numbers(mask)
        value = pc.filter(self.values, mask)[0].as_py()
        return self.problem(f"holds {quoted(value)} in {numbered('row', rows, total)}, {what}", mend)

    def row_numbers(self, mask: pa.Array) -> tuple[list[int], int]:
        """Returns the first rows (1-based) where a mask is true, and how many values there are."""
        places, total = row_numbers(mask)
        if self.rows is not None:
            places = [int(self.rows[place - 1]) for place in places]
        return places, total


def read_columns(examples: Examples) -> list[LabelColumn]:
    """Returns the label columns of examples, in order.

    Raises:
        DataError: There are none, or one holds a type that no label has.
    """
    if not examples.label_columns:
        raise DataError(f"{quoted_path(examples.source)}: no label columns are named.\nName some.")
    table = table_of(examples.dataset.select_columns(list(examples.label_columns)))
    return [
        _column(examples.source, name, examples.dataset.features[name], table.column(name))
        for name in examples.label_columns
    ]


def _column(source: str, name: str, feature: Any, chunked: pa.ChunkedArray, *, nested: bool = False) -> LabelColumn:
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    values = chunked.combine_chunks() if isinstance(chunked, pa.ChunkedArray) else chunked
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
        item = _column(source, name, listed_feature, items, nested=True)
        item = LabelColumn(source, name, item.kind, item.values, item.classes, rows=rows)
        item.refuse(pc.is_null(items), "has a list with a null", "Remove the null.")
        return LabelColumn(source, name, "list", lists, item=item)
    found = _kind_of(kind) if isinstance(feature, datasets.Value) else None
    if found == "text":
        values = pc.cast(values, pa.string())
    if found is not None:
        return LabelColumn(source, name, found, values)
    what = "values of mixed types" if is_mixed(feature) else f"the type {kind}"
    raise DataError(
        f"{quoted_path(source)}: the label column {quoted(name)} holds {what}.\n"
        "Labels are texts, numbers, booleans, or lists of texts or whole numbers; write one kind."
    )


def _kind_of(kind: pa.DataType) -> Kind | None:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return None


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
