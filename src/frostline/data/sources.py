"""Finding the table that a source names: a file, a folder, or a data set on the hub.

A source is a file where it exists as one, has the ending of a data file, or starts like a path
(``./``, ``../``, ``/``, ``~``). Everything else is a data set: a folder that ``datasets``
understands, or a name on the hub, with an optional split (see :mod:`frostline.data.named`).
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from frostline.data.causes import system_error
from frostline.data.named import DataName, Role, read_named
from frostline.data.rawtext import packing_of
from frostline.data.table_files import SUFFIXES, read_file
from frostline.errors import DataError

if TYPE_CHECKING:
    import datasets

# Endings that data files have and that are not read: named in an error, never asked of the hub.
_OTHER_SUFFIXES = {
    *(".txt", ".xlsx", ".xls", ".ods", ".xml", ".html", ".pdf", ".docx", ".sqlite", ".db"),
    *(".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".arrow", ".feather", ".orc", ".npz", ".pkl"),
    *(".pickle", ".ndjson", ".yaml", ".yml", ".tab", ".dat"),
}
_PATH_STARTS = ("./", "../", "/", "~", ".\\", "..\\")


def read_table(source: str, *, role: Role) -> datasets.Dataset:
    """Reads the table that a source names.

    Args:
        source: The path of a .csv, .tsv, .jsonl, .json or .parquet file, or a data set: a folder or
            a name on the hub, as NAME, NAME:SPLIT or NAME:CONFIG:SPLIT.
        role: What the rows are for. It decides the split where none is named: ``"train"`` reads
            ``train``; ``"eval"`` reads ``validation``, else ``test``; ``"predict"`` reads ``test``,
            else the first one.

    Returns:
        All rows and columns. Cells of CSV and TSV files are texts, exactly as written.

    Raises:
        DataError: The source cannot be found or read, or is no table; the message says where and
            how to mend it.
    """
    if not source.strip() or "\0" in source:
        raise DataError(f"{source!r} names no data.\nGive the path of a file, or a data set's name.")
    if not is_file(source):
        return read_named(DataName.parse(source), role)
    path = Path(source).expanduser()
    try:
        if not path.exists():
            raise _missing(path, source)
    except OSError as error:  # a folder on the way may not be entered, a name may be too long
        raise system_error(error, source) or DataError(f"{source!r} cannot be read: {error.strerror}.") from error
    if not path.is_file():  # it may never end
        raise DataError(
            f"{source!r} is a pipe or a device, and no file.\nWrite what it gives to a file, and name that."
        )
    if path.suffix.lower() not in SUFFIXES:
        kind = f"{path.suffix} files are" if path.suffix else "a file without an ending is"
        packed = packing_of(path)
        raise DataError(
            f"{source!r}: {kind} not supported; supported are {', '.join(SUFFIXES)}.\n"
            + (f"Unpack it first: it is packed by {packed}." if packed else "Convert it to one of these.")
        )
    return read_file(path, source)


def is_file(source: str) -> bool:
    """Tells whether a source means a file, existing or not, instead of a data set."""
    try:
        path = Path(source).expanduser()
        if path.exists():
            return not path.is_dir()
        if path.is_symlink():  # which leads to nothing
            return True
        before_a_colon = Path(DataName.name_in(source)).expanduser()
        if before_a_colon.exists():
            return not before_a_colon.is_dir()
    except (OSError, RuntimeError):  # RuntimeError: no such user's home
        return True
    suffix = Path(source).suffix.lower()
    return source.startswith(_PATH_STARTS) or suffix in SUFFIXES or suffix in _OTHER_SUFFIXES


def place_of(source: str) -> Path | None:
    """Find the file or folder on this machine that a source or a model's name means; None where there is none."""
    for name in (source, DataName.name_in(source)):
        try:
            path = Path(name).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError, ValueError):  # a name that no path can be
            continue
    return None


def _missing(path: Path, source: str) -> DataError:
    if path.is_symlink():
        return DataError(
            f"{source!r} is a link to {str(path.readlink())!r}, which leads to nothing.\n"
            "Mend the link, or name another file."
        )
    shortened = source.rpartition(":")[0]
    if shortened and Path(shortened).expanduser().is_file():
        return DataError(f"{source!r}: a file has no splits.\nName it alone: {shortened!r}.")
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"{source!r} does not exist, nor does its folder {str(folder)!r}.\nCheck the path.")
    known = {entry.name.casefold(): entry.name for entry in folder.iterdir()}
    near = get_close_matches(path.name.casefold(), known, n=3, cutoff=0.6)
    names = " or ".join(repr(str(path.with_name(known[name]))) for name in near)
    return DataError(f"{source!r} does not exist.\n" + (f"Did you mean {names}?" if near else "Check the path."))
