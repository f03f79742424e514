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
from typing import TYPE_CHECKING, Any, Literal

from frostline.compat.tables import is_mixed
from frostline.data.messages import listed, numbered, quoted, suggestion
from frostline.data.quiet_datasets import quiet_datasets
from frostline.data.sources import read_table
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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

    @property
    def texts(self) -> list[str]:
        """The texts, those of a pair with an arrow between them."""
        columns = [self.dataset[name][:] for name in TEXT_NAMES if name in self.dataset.column_names]
        return [" → ".join(pair) for pair in zip(*columns, strict=True)]

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
    _check_present(dataset.column_names, source, dict.fromkeys(texts, "text") | dict.fromkeys(labels, "label"))
    if limit is not None:
        if limit < 1:
            raise DataError(f"The limit of rows is {limit}; it must be 1 or more.")
        dataset = dataset.select(range(min(limit, len(dataset))))
    if not len(dataset):
        raise DataError(f"{source!r} has no rows.\nName another file or split.")

    dataset = dataset.select_columns([*texts, *labels])
    for name in texts:
        dataset = _with_texts(dataset, source, name)
        _check_texts(table_of(dataset).column(name), source, name)
    for name in labels:
        missing = table_of(dataset).column(name).is_null()
        mend = "Remove these rows, or give them a label."
        _refuse_rows(missing, source, f"the label column {quoted(name)} is empty", mend)
    dataset = dataset.rename_columns({old: new for old, new in zip(texts, TEXT_NAMES, strict=False) if old != new})
    return Examples(dataset, source, texts, labels)


def table_of(dataset: datasets.Dataset) -> pa.Table:
    """Returns a data set's rows as an Arrow table, without copying where they are contiguous."""
    table: pa.Table = dataset.with_format("arrow")[:]
    return table


def kind_of(kind: pa.DataType) -> Literal["text", "integer", "number", "boolean"] | None:
    """Tells which values of texts and labels a type holds; ``None`` for any other."""
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return "boolean" if pa.types.is_boolean(kind) else None


def rows_where(mask: pa.ChunkedArray) -> list[int]:
    """Returns the rows (1-based) at which a mask is true."""
    import pyarrow.compute as pc

    return [row + 1 for row in pc.indices_nonzero(mask).to_pylist()]


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


def _check_present(known: Sequence[str], source: str, roles: Mapping[str, str]) -> None:
    for name, role in roles.items():
        if name not in known:
            raise DataError(
                f"{source!r} has no column {quoted(name)} to take as {role}; it has "
                f"{listed(known)}.\nName the {role} column.{suggestion(name, known)}"
            )


def _with_texts(dataset: datasets.Dataset, source: str, name: str) -> datasets.Dataset:
    """Makes texts of a column of numbers; any other type but text is an error."""
    import pyarrow as pa
    from datasets import Features, Value

    feature: Any = dataset.features[name]
    kind = dataset.data.schema.field(name).type
    found = kind_of(kind) if isinstance(feature, Value) else None
    if found == "text":
        return dataset
    if found in {"integer", "number"}:
        features = Features({**dataset.features, name: Value("string")})
        with quiet_datasets():
            cast: datasets.Dataset = dataset.cast(features, keep_in_memory=True, load_from_cache_file=False)
        return cast
    what = "values of mixed types" if is_mixed(feature) else f"the type {kind}"
    if pa.types.is_null(kind):
        what = "nothing but null"
    raise DataError(
        f"{source!r}: the text column {quoted(name)} holds {what}.\n"
        f"Texts are needed; name another column, or write texts (columns: "
        f"{listed(dataset.column_names)})."
    )


def _check_texts(column: pa.ChunkedArray, source: str, name: str) -> None:
    import pyarrow.compute as pc

    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True)
    what = f"the text column {quoted(name)}"
    _refuse_rows(blank, source, f"{what} is empty", "Remove these rows.")
    _refuse_rows(pc.match_substring(column, "\0"), source, f"{what} holds a NUL character", "Remove the character.")


def _refuse_rows(mask: pa.ChunkedArray, source: str, what: str, mend: str) -> None:
    rows = rows_where(mask)
    if rows:
        raise DataError(f"{source!r}: {what} in {numbered('row', rows)} (the header not counted).\n{mend}")
