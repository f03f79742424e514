"""Reading one file into a :class:`datasets.Dataset`.

The file is checked strictly, read by the builder of ``datasets`` and cached by it, under the
digest of the file's content: a second run only hashes the file, and a file edited in place is read
again even if its time stamp says otherwise. CSV and TSV cells stay texts, exactly as written
(``NA``, ``null``, ``007``); in JSON and Parquet values keep their type.

Where the builder fails on a file that passed the check, or finds another number of rows or dates
that JSON does not have, the file is read plainly, in memory.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.compat.tables import csv_builder, json_builder, of_mixed, parquet_builder
from frostline.data import delimited, jsonlines
from frostline.data.causes import first_line, system_error
from frostline.data.messages import listed, quoted_path
from frostline.data.quiet import quiet_datasets
from frostline.data.rawtext import check_utf8
from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import datasets
    import pyarrow as pa
    from datasets.builder import DatasetBuilder

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


def read_file(path: Path, source: str) -> datasets.Dataset:
    """Reads one file.

    Args:
        path: An existing file with one of :data:`SUFFIXES`, in any case.
        source: The file as the user named it, for messages.

    Returns:
        The rows, memory-mapped from the cache of ``datasets``.

    Raises:
        DataError: The file cannot be read, or is no table.
    """
    readers: dict[str, Callable[[Path, str, str], datasets.Dataset]] = {
        ".csv": _read_delimited,
        ".tsv": _read_delimited,
        ".jsonl": _read_json,
        ".json": _read_json,
        ".parquet": _read_parquet,
    }
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not path.stat().st_size:
            raise DataError(f"{quoted_path(source)} is empty.\nName a file that holds a table.")
        with quiet_datasets(), _alone(digest):
            return readers[path.suffix.lower()](path, source, digest)
    except OSError as error:
        raise system_error(error, source) or DataError(
            f"{quoted_path(source)} cannot be read: {first_line(error)}."
        ) from error


@contextmanager
def _alone(digest: str) -> Iterator[None]:
    """Let one process at a time put a file into the cache of ``datasets``, which two would spoil for each other."""
    from datasets import config
    from filelock import FileLock

    folder = Path(config.HF_DATASETS_CACHE)
    lock = FileLock(folder / f"frostline-{digest[:16]}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # a cache that cannot be written to; reading it needs no lock
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _read_delimited(path: Path, source: str, digest: str) -> datasets.Dataset:
    from datasets import Features, Value

    def builder_for(dialect: delimited.Dialect) -> DatasetBuilder:
        names = list(delimited.column_names(path, source, dialect))
        return csv_builder(
            path,
            digest,
            features=Features({name: Value("string") for name in names}),
            names=names,
            header=0,
            index_col=False,
            sep=dialect.delimiter,
            quoting=dialect.quoting,
            encoding=delimited.ENCODING,
            keep_default_na=False,
            na_filter=False,
        )

    for dialect in delimited.dialects(path):
        try:
            cached = _cached(builder_for(dialect))
        except (DataError, UnicodeDecodeError):  # said with more detail by the checks below
            continue
        if cached is not None:
            return cached
    check_utf8(path, source)
    scan = delimited.scan(path, source)

    def plain() -> datasets.Dataset:
        import pyarrow as pa

        names = delimited.column_names(path, source, scan.dialect)
        columns = zip(*delimited.plain_rows(path, scan.dialect), strict=True)
        table = {n: pa.array(c, pa.string()) for n, c in zip(names, columns, strict=True)}
        return _in_memory(pa.table(table), digest)

    return _build(builder_for(scan.dialect), scan.rows, source, plain)


def _read_json(path: Path, source: str, digest: str) -> datasets.Dataset:
    def plain() -> datasets.Dataset:
        return _in_memory(_json_table(list(jsonlines.json_rows(path, source))), digest)

    builder = json_builder(path, digest)
    dataset = _cached(builder)
    if dataset is None:
        check_utf8(path, source)
        dataset = _build(builder, jsonlines.count_rows(path, source), source, plain)
    return plain() if any(_guessed(field.type) for field in dataset.data.schema) else dataset


def _read_parquet(path: Path, source: str, digest: str) -> datasets.Dataset:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        names = list(metadata.schema.to_arrow_schema().names)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"{quoted_path(source)} is damaged or no Parquet file: {first_line(error)}.\n"
            "Write it again, or name a file of another kind with its right ending."
        ) from error
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{quoted_path(source)} names the column {listed(twice[:1])} twice.\nRename or remove one.")
    if not metadata.num_rows:
        raise DataError(
            f"{quoted_path(source)} has columns ({listed(names)}) but no rows.\nName another file, or write it again."
        )

    def plain() -> datasets.Dataset:
        return _in_memory(pq.read_table(path).replace_schema_metadata(None), digest)

    builder = parquet_builder(path, digest)
    cached = _cached(builder)
    if cached is not None:
        return cached
    return _build(builder, metadata.num_rows, source, plain)


def _cached(builder: DatasetBuilder) -> datasets.Dataset | None:
    from datasets.exceptions import DatasetsError

    if not Path(builder.cache_dir).is_dir():
        return None
    try:
        dataset: datasets.Dataset = builder.as_dataset(split="train")
    except (OSError, ValueError, DatasetsError):  # damaged, e.g. emptied to save space
        shutil.rmtree(builder.cache_dir, ignore_errors=True)
        return None
    return dataset


def _build(builder: DatasetBuilder, rows: int, source: str, plain: Callable[[], datasets.Dataset]) -> datasets.Dataset:
    """Lets the builder read and cache the file; if it cannot, reads the file plainly.

    Args:
        builder: A builder of ``datasets`` for one file.
        rows: The number of rows that the file has.
        source: The file as the user named it, for messages.
        plain: Reads the file in memory.
    """
    from datasets.exceptions import DatasetsError

    try:
        builder.download_and_prepare()
        dataset: datasets.Dataset = builder.as_dataset(split="train")
    except (OSError, ValueError, TypeError, DatasetsError) as error:
        known = system_error(error, source)
        if known is not None:
            raise known from error
        return _plainly(plain, source, error)
    if len(dataset) == rows:
        return dataset
    shutil.rmtree(builder.cache_dir, ignore_errors=True)
    return _plainly(plain, source, None)


def _plainly(plain: Callable[[], datasets.Dataset], source: str, earlier: Exception | None) -> datasets.Dataset:
    try:
        return plain()
    except DataError:
        raise
    except (OSError, ValueError, TypeError, ArithmeticError) as error:
        raise DataError(
            f"{quoted_path(source)} is damaged, or of a form that is not supported: "
            f"{first_line(earlier or error)}.\nWrite it again, with plain texts and labels."
        ) from error


def _in_memory(table: pa.Table, digest: str) -> datasets.Dataset:
    from datasets import Dataset

    return Dataset(table, fingerprint=digest[:16])


def _json_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Builds a table of parsed rows; a column of mixed types becomes JSON texts."""
    import json

    import pyarrow as pa

    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, TypeError, OverflowError):
            texts = [json.dumps(value, ensure_ascii=False) for value in values]
            columns[name] = of_mixed(texts)
    return pa.table(columns)


def _guessed(kind: pa.DataType) -> bool:
    """Tells whether a type, or a type within, is one that JSON does not have."""
    import pyarrow as pa

    if pa.types.is_temporal(kind):
        return True
    if pa.types.is_nested(kind):
        return any(_guessed(kind.field(index).type) for index in range(kind.num_fields))
    return False
