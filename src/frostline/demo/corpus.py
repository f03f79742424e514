"""Real text that is on every machine: the docstrings of Python's own standard library.

Each docstring is labelled with its area, which is what the module around it is for::

    corpus = build_corpus()
    corpus.train[0]  # Row(text="...", label="concurrency", source="asyncio.base_events...")
    train_csv, test_csv = write_corpus(corpus, Path("demo"))

No module is imported or run: the source files are read and parsed. One Python version always gives
one corpus, and its digest says so. The two sides are fit for measuring: a source file is on one
side only, no text is there twice, and no test text repeats eight words in a row of a training text.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import os
import platform
import re
import sysconfig
import tokenize
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from frostline.base.json import json_digest
from frostline.errors import DataError, OutputError

# What a top-level module is for. What serves every area has none (containers, the language's own
# tools); so have modules that 3.12 or 3.13 removed, that the corpora of all versions be alike.
# Names that a Python version lacks are skipped.
AREAS: Mapping[str, str] = {
    "concurrency": (
        "_threading_local asyncio concurrent multiprocessing queue sched selectors signal subprocess threading"
    ),
    "files": (
        "_compression _pyio bz2 compression dbm filecmp fileinput fnmatch genericpath glob gzip io "
        "linecache lzma ntpath nturl2path os pathlib posixpath shelve shutil stat tarfile tempfile "
        "zipapp zipfile"
    ),
    "internet": (
        "email ftplib http imaplib ipaddress mailbox netrc poplib quopri smtplib socket "
        "socketserver ssl urllib webbrowser wsgiref xmlrpc"
    ),
    "numbers": (
        "_pydatetime _pydecimal _strptime bisect calendar colorsys datetime decimal fractions "
        "numbers random secrets statistics zoneinfo"
    ),
    "testing": (
        "bdb cProfile doctest logging pdb profile pstats rlcompleter timeit trace traceback "
        "tracemalloc unittest warnings"
    ),
    "text": (
        "_markupbase base64 codecs configparser csv difflib encodings gettext html json locale "
        "plistlib pprint re reprlib shlex string stringprep textwrap tomllib xml"
    ),
}

MIN_ROWS = 2_000
MIN_WORDS = 4
MAX_WORDS = 60
TEST_SHARE = 0.2
TEST_FILE_SHARE = 0.1  # of an area's rows: a larger file trains, lest it be most of the test
SHARED_RUN = 8  # words in a row that a test text must not share with a training text

_SIGNATURE = re.compile(r"[\w.\[\]]+\(.*\)(\s*->.*)?:?")
_SENTENCE_END = re.compile(r"[.!?][\"')]*$")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Row:
    """One text.

    Attributes:
        text: The docstring's prose, in one line.
        label: The area of the module.
        source: Where it stands, as in ``json.decoder.JSONDecoder.decode``.
    """

    text: str
    label: str
    source: str


@dataclass(frozen=True)
class Corpus:
    """Labelled texts on two sides.

    Attributes:
        train: The rows to learn from, ordered by source.
        test: The rows to measure on, ordered by source; their source files have no row in `train`.
        labels: The areas, in alphabetical order.
        python: The version of Python whose standard library was read.
        digest: SHA-256 of the rows of both sides, in hexadecimal.
    """

    train: tuple[Row, ...]
    test: tuple[Row, ...]
    labels: tuple[str, ...]
    python: str
    digest: str


@dataclass(frozen=True)
class _Found:
    """A row, and the module (that is, the source file) it was found in."""

    row: Row
    module: str


def build_corpus() -> Corpus:
    """Build the corpus from the standard library of the running Python.

    Returns:
        The corpus; the same for the same files, whatever the hash seed, locale or file system.

    Raises:
        DataError: The source files are missing, cannot be read, or are too few.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    found = drop_repeats(
        _Found(Row(text, label, source), module)
        for module, label, path in _source_files(folder)
        for source, text in _docstrings(module, path)
    )
    train, test = split_by_module(found)
    labels = tuple(sorted(AREAS))
    count = len(train) + len(test)
    lacking = set(labels) - ({row.label for row in train} & {row.label for row in test})
    if count < MIN_ROWS or lacking:
        raise DataError(
            f"the standard library in {str(folder)!r} gives only {count} texts of {MIN_ROWS} "
            f"(areas with too few: {', '.join(sorted(lacking)) or 'none'}): "
            "use a Python that is installed with its source files"
        )
    return Corpus(train, test, labels, platform.python_version(), _digest(train, test))


def write_corpus(corpus: Corpus, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a corpus as two CSV files in UTF-8, each with the header ``text,label``.

    Args:
        corpus: What to write.
        folder: Where to; made when missing. Files of the same names are replaced.

    Returns:
        The paths of ``train.csv`` and ``test.csv``.

    Raises:
        OutputError: The folder or a file cannot be written. No half-written file is left.
    """
    target = Path(folder)
    paths = (target / "train.csv", target / "test.csv")
    drafts = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        target.mkdir(parents=True, exist_ok=True)
        for draft, rows in zip(drafts, (corpus.train, corpus.test), strict=True):
            _write_csv(draft, rows)
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write the corpus to {str(target)!r}: {error.strerror or error}") from error
    finally:
        for draft in drafts:
            with contextlib.suppress(OSError):
                draft.unlink()
    return paths


def clean(docstring: str) -> str:
    """Reduce a docstring to its prose.

    Examples and signature lines are dropped, white space becomes single spaces, and whole
    paragraphs are kept up to `MAX_WORDS` words. A longer first paragraph ends after its last
    whole sentence within them, or is cut there.

    Args:
        docstring: As `ast.get_docstring` gives it.

    Returns:
        One line of text; empty when there are fewer than `MIN_WORDS` words.
    """
    words: list[str] = []
    for paragraph in _paragraphs(docstring):
        if words and len(words) + len(paragraph) > MAX_WORDS:
            break
        words += paragraph
    if len(words) > MAX_WORDS:
        words = words[:MAX_WORDS]
        ends = [at for at, word in enumerate(words, 1) if _SENTENCE_END.search(word)]
        if ends and ends[-1] >= MIN_WORDS:
            words = words[: ends[-1]]
    if sum(any(map(str.isalpha, word)) for word in words) < MIN_WORDS:
        return ""
    return " ".join(words)


def drop_repeats(found: Iterable[_Found]) -> list[_Found]:
    """Keep each text once, and no text that stands under two labels.

    Texts are the same when they differ in letter case, white space or Unicode form only.

    Returns:
        What is left, ordered by source.
    """
    groups: dict[str, list[_Found]] = defaultdict(list)
    for one in sorted(found, key=lambda one: (one.row.source, one.row.text, one.module)):
        groups[sameness(one.row.text)].append(one)
    return [group[0] for group in groups.values() if len({one.row.label for one in group}) == 1]


def sameness(text: str) -> str:
    """The form in which two texts are compared: NFKC, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of `SHARED_RUN` words in a text, without punctuation; a shorter text is one run."""
    words = _WORD.findall(sameness(text))
    last = max(len(words) - SHARED_RUN, 0)
    return {tuple(words[at : at + SHARED_RUN]) for at in range(last + 1)}


def split_by_module(found: Sequence[_Found]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Share out source files between training and test, area by area.

    The files of an area are taken in the order of the SHA-256 of their names. Each goes to the
    test side unless it is large (`TEST_FILE_SHARE`) or would take that side above `TEST_SHARE` of
    the area's rows. Then the test rows leave that share a run of words with a training row.

    Returns:
        The training and the test rows, each ordered by source.
    """
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        sizes[one.row.label][one.module] += 1
    chosen = {module for area in sizes.values() for module in _test_modules(area)}
    train = tuple(one.row for one in found if one.module not in chosen)
    known = {run for row in train for run in runs(row.text)}
    test = tuple(one.row for one in found if one.module in chosen and known.isdisjoint(runs(one.row.text)))
    return train, test


def _test_modules(sizes: Mapping[str, int]) -> Iterator[str]:
    """The modules of one area whose rows are for testing."""
    total = sum(sizes.values())
    room = TEST_SHARE * total
    for module in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[module] <= min(room, TEST_FILE_SHARE * total):
            room -= sizes[module]
            yield module


def _source_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Dotted name, area and path of each source file that has an area."""
    for label, names in AREAS.items():
        for name in names.split():
            single = folder / f"{name}.py"
            if single.is_file():
                yield name, label, single
            for path in (folder / name).rglob("*.py"):
                parts = path.relative_to(folder).with_suffix("").parts
                if not {"test", "tests"} & set(parts):
                    yield ".".join(parts).removesuffix(".__init__"), label, path


def _docstrings(module: str, path: Path) -> Iterator[tuple[str, str]]:
    """Dotted source and cleaned text of every docstring with prose in one file."""
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in the file's strings
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r} of the standard library ({error}): reinstall Python") from error
    for source, node in _documented(tree, module):
        text = clean(ast.get_docstring(node) or "")
        if text:
            yield source, text


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, _Documented]]:
    """Every node below that can have a docstring, with its dotted name."""
    if isinstance(node, _Documented):
        yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, f"{name}.{child.name}")
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _documented(child, name)


def _paragraphs(docstring: str) -> Iterator[list[str]]:
    """The words of each paragraph, without examples, signatures and ruled lines."""
    words: list[str] = []
    in_example = False
    for line in [*map(str.strip, docstring.splitlines()), ""]:
        if not line:
            if words:
                yield words
            words, in_example = [], False
        elif line.startswith(">>>"):
            in_example = True
        elif not in_example and not _SIGNATURE.fullmatch(line) and any(map(str.isalpha, line)):
            words += line.split()


def _digest(*sides: Sequence[Row]) -> str:
    """SHA-256 of the rows, side after side."""
    content = [[[row.text, row.label, row.source] for row in rows] for rows in sides]
    return json_digest(content)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a file, down to the disk."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("text", "label"))
        writer.writerows((row.text, row.label) for row in rows)
        file.flush()
        os.fsync(file.fileno())
