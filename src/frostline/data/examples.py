"""Examples: the columns of a table that are text and label, checked.

Decisions:

- The text columns are renamed ``text`` and, for pairs, ``text_pair``; label columns keep their
  names; all other columns are dropped.
- Texts that are numbers become texts. Every other type is an error.
- A text that is missing, empty or only white space is an error, because a prediction or a label for
  it would mean nothing. So is a text with a NUL character, which tokenizers cut or reject.
- A label that is missing (null) is an error. An empty label text is not: it may mean "none of the
  labels" (:mod:`frostline.data.labels` decides).
- ``limit`` takes the first rows, and only those are checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from frostline.compat.tables import is_mixed
from frostline.data.messages import listed, numbered, quoted, quoted_path, suggestion
from frostline.data.quiet import quiet_datasets
from frostline.data.sources import read_table
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import datasets
    import pyarrow as pa

    from frostline.data.named import Role

TEXT_NAMES = ("text", "text_pair")


@dataclass(frozen=True)
class Examples:
    """Texts and, unless they are to be predicted, raw labels.

    Attributes:
        dataset: The columns ``text`` and, for pairs, ``text_pair`` (strings), then the label
            columns as they were read.
        source: Where the rows came from, as the user named it.
        text_columns: The names that the text columns had there, one or two.
        label_columns: The names of the label columns; empty where there are no labels.
    """

    dataset: datasets.Dataset
    source: str
    text_columns: tuple[str, ...]
    label_columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, rows: Iterable[int]) -> Examples:
        """Take some rows, by their places, in the order given."""
        return replace(self, dataset=self.dataset.select(rows))


def read_examples(
    source: str,
    *,
    text_columns: Sequence[str] = ("text",),
    label_columns: Sequence[str] | None = ("label",),
    limit: int | None = None,
    role: Role = "train",
) -> Examples:
    """Reads a table and checks its texts and labels.

    Args:
        source: A file, or the name of a data set; see :func:`frostline.data.sources.read_table`.
        text_columns: The column of texts, or the two columns of pairs of texts.
        label_columns: The columns of labels; ``None`` or none if there are no labels.
        limit: Takes only so many rows, the first ones.
        role: What the rows are for; decides the split of a data set that has several.

    Raises:
        DataError: The source cannot be read, a column is missing, or a text or label cannot be
            used; the message names rows (1-based, the header not counted).
    """
    return choose_columns(
        read_table(source, role=role),
        source=source,
        text_columns=text_columns,
        label_columns=label_columns,
        limit=limit,
    )


def choose_columns(
    dataset: datasets.Dataset,
    *,
    source: str = "the data set",
    text_columns: Sequence[str] = ("text",),
    label_columns: Sequence[str] | None = ("label",),
    limit: int | None = None,
) -> Examples:
    """Makes examples of a data set that is read already; see :func:`read_examples`.

    Raises:
        DataError: As :func:`read_examples`.
    """
    texts, labels = tuple(text_columns), tuple(label_columns or ())
    _check_names(texts, labels)
    for role, names in (("text", texts), ("label", labels)):
        for name in names:
            _check_present(dataset, source, name, role)
    if limit is not None:
        if limit < 1:
            raise DataError(f"The limit of rows is {limit}; it must be 1 or more.")
        dataset = dataset.select(range(min(limit, len(dataset))))
    if not len(dataset):
        raise DataError(f"{quoted_path(source)} has no rows.\nName another file or split.")

    dataset = dataset.select_columns([*texts, *labels])
    table = table_of(dataset)
    for name in texts:
        if _check_text_type(dataset, source, name):
            dataset = _as_text(dataset, name)
            table = table_of(dataset)
        _check_texts(table.column(name), source, name)
    for name in labels:
        _check_labels(table.column(name), source, name)
    dataset = dataset.rename_columns({old: new for old, new in zip(texts, TEXT_NAMES, strict=False) if old != new})
    return Examples(dataset, source, texts, labels)


def table_of(dataset: datasets.Dataset) -> pa.Table:
    """Returns a data set's rows as an Arrow table, without copying where they are contiguous."""
    table: pa.Table = dataset.with_format("arrow")[:]
    return table


def row_numbers(mask: pa.ChunkedArray) -> tuple[list[int], int]:
    """Returns the first five rows (1-based) at which a mask is true, and how many there are."""
    import pyarrow.compute as pc

    rows = pc.indices_nonzero(mask)
    return [int(row) + 1 for row in rows[:5].to_pylist()], len(rows)


def _check_names(texts: tuple[str, ...], labels: tuple[str, ...]) -> None:
    if not 1 <= len(texts) <= len(TEXT_NAMES):
        raise DataError(f"{len(texts)} text columns are named ({listed(texts)}); name one, or two for pairs.")
    both = (*texts, *labels)
    twice = [name for name in dict.fromkeys(both) if both.count(name) > 1]
    if twice:
        raise DataError(
            f"The column {quoted(twice[0])} is named twice: text columns {listed(texts)}, "
            f"label columns {listed(labels) or 'none'}.\nName each column once."
        )
    taken = [name for name in labels if name in TEXT_NAMES[: len(texts)]]
    if taken:
        raise DataError(
            f"A label column cannot be called {quoted(taken[0])}: the texts get that name.\nRename it in the data."
        )


def _check_present(dataset: datasets.Dataset, source: str, name: str, role: str) -> None:
    known = dataset.column_names
    if name not in known:
        raise DataError(
            f"{quoted_path(source)} has no column {quoted(name)} to take as {role}; it has "
            f"{listed(known)}.\nName the {role} column.{suggestion(name, known)}"
        )


def _check_text_type(dataset: datasets.Dataset, source: str, name: str) -> bool:
    """Returns whether a column of texts holds numbers; any other type but text is an error."""
    import datasets
    import pyarrow as pa

    feature: Any = dataset.features[name]
    kind = dataset.data.schema.field(name).type
    if isinstance(feature, datasets.Value):
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return False
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return True
    found = "values of mixed types" if is_mixed(feature) else f"the type {kind}"
    if pa.types.is_null(kind):
        found = "nothing but null"
    raise DataError(
        f"{quoted_path(source)}: the text column {quoted(name)} holds {found}.\n"
        f"Texts are needed; name another column, or write texts (columns: "
        f"{listed(dataset.column_names)})."
    )


def _as_text(dataset: datasets.Dataset, name: str) -> datasets.Dataset:
    from datasets import Features, Value

    features = Features({**dataset.features, name: Value("string")})
    with quiet_datasets():
        cast: datasets.Dataset = dataset.cast(features, keep_in_memory=True, load_from_cache_file=False)
    return cast


def _check_texts(column: pa.ChunkedArray, source: str, name: str) -> None:
    import pyarrow.compute as pc

    blank = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), True)
    rows, total = row_numbers(blank)
    if total:
        raise DataError(
            f"{quoted_path(source)}: the text column {quoted(name)} is empty in "
            f"{numbered('row', rows, total)} (the header not counted).\nRemove these rows."
        )
    rows, total = row_numbers(pc.match_substring(column, "\0"))
    if total:
        raise DataError(
            f"{quoted_path(source)}: the text column {quoted(name)} holds a NUL character in "
            f"{numbered('row', rows, total)} (the header not counted).\nRemove the character."
        )


def _check_labels(column: pa.ChunkedArray, source: str, name: str) -> None:
    import pyarrow.compute as pc

    rows, total = row_numbers(pc.is_null(column))
    if total:
        raise DataError(
            f"{quoted_path(source)}: the label column {quoted(name)} is empty in "
            f"{numbered('row', rows, total)} (the header not counted).\n"
            "Remove these rows, or give them a label."
        )
