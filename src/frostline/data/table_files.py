"""Reading one file into a :class:`datasets.Dataset`.

The file is read once, as bytes. Where the cache of ``datasets`` holds a table under the digest of these bytes, that one
is taken; else they are parsed, strictly, and the table is put there. So a file that was edited in place is parsed again
even if its time stamp says otherwise. CSV and TSV cells stay texts, exactly as written (``NA``, ``null``, ``007``); in
JSON and Parquet values keep their type.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from frostline.data.causes import first_line, system_error
from frostline.data.delimited import parse_csv, parse_tsv
from frostline.data.jsonlines import parse_json_rows
from frostline.data.messages import listed
from frostline.data.quiet_datasets import quiet_datasets
from frostline.data.rawtext import refuse_no_text
from frostline.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_TEXT_PARSERS = {".csv": parse_csv, ".tsv": parse_tsv, ".jsonl": parse_json_rows, ".json": parse_json_rows}
SUFFIXES = (*_TEXT_PARSERS, ".parquet")
_CACHE = "frostline-1"  # another number where the same bytes make another table


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
    try:
        with path.open("rb") as file:
            content = file.read()
        with quiet_datasets():
            return _cached(content, path.suffix.lower(), source)
    except OSError as error:
        raise system_error(error, source) or DataError(f"{source!r} cannot be read: {first_line(error)}.") from error


def _cached(content: bytes, suffix: str, source: str) -> datasets.Dataset:
    from datasets import Dataset, config
    from datasets.exceptions import DatasetsError
    from filelock import FileLock

    digest = hashlib.sha256(content).hexdigest()
    folder = Path(config.HF_DATASETS_CACHE) / _CACHE / f"{digest}{suffix}"
    with ExitStack() as stack:
        with suppress(OSError):  # a cache that cannot be written to; reading it needs no lock
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{folder}.lock"))
        with suppress(OSError, ValueError, DatasetsError):  # not there; or damaged, e.g. emptied to save space
            return Dataset.load_from_disk(str(folder))
        dataset = _parsed(content, suffix, source, digest)
        if dataset.column_names:  # without any, datasets cannot save it
            shutil.rmtree(folder, ignore_errors=True)  # so that a half-written one never looks complete
            dataset.save_to_disk(str(folder))
            dataset = Dataset.load_from_disk(str(folder))
    return dataset


def _parsed(content: bytes, suffix: str, source: str, digest: str) -> datasets.Dataset:
    from datasets import Dataset

    if not content:
        raise DataError(f"{source!r} is empty.\nName a file that holds a table.")
    try:
        table = _parquet_table(content, source) if suffix == ".parquet" else _text_table(content, suffix, source)
        with suppress(ValueError, TypeError):  # of notes beside the columns, by another version of datasets
            return Dataset(table, fingerprint=digest[:16])
        return Dataset(table.replace_schema_metadata(None), fingerprint=digest[:16])
    except DataError:
        raise
    except (OSError, ValueError, TypeError, ArithmeticError) as error:
        raise DataError(
            f"{source!r} is damaged, or of a form that is not supported: {first_line(error)}.\n"
            "Write it again, with plain texts and labels."
        ) from error


def _text_table(content: bytes, suffix: str, source: str) -> pa.Table:
    if b"\0" in content:  # which the parsers would take for text
        refuse_no_text(content, suffix, source)
    try:
        return _TEXT_PARSERS[suffix](content, source)
    except (DataError, UnicodeDecodeError):
        refuse_no_text(content, suffix, source)  # which explains more than what it leads to
        raise


def _parquet_table(content: bytes, source: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{source!r} is damaged or no Parquet file: {first_line(error)}.\n"
            "Write it again, or name a file of another kind with its right ending."
        ) from error
    names = file.schema_arrow.names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{source!r} names the column {listed(twice[:1])} twice.\nRename or remove one.")
    if not file.metadata.num_rows:
        raise DataError(f"{source!r} has columns ({listed(names)}) but no rows.\nName another file, or write it again.")
    return file.read()
