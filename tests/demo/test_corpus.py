from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.demo import corpus as module
from frostline.demo.corpus import (
    AREAS,
    MAX_WORDS,
    MIN_WORDS,
    SHARED_RUN,
    Corpus,
    Row,
    build_corpus,
    clean,
    drop_repeats,
    runs,
    sameness,
    split_by_module,
    write_corpus,
)
from frostline.errors import DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus()


def found(text: str, label: str = "files", source: str = "glob.glob") -> module._Found:
    return module._Found(Row(text, label, source), source.rpartition(".")[0])


def files_of(rows: Sequence[Row]) -> set[Path]:
    """The source files of rows, found from their dotted names alone."""
    return {_file_of(row.source.split(".")) for row in rows}


def _file_of(parts: list[str]) -> Path:
    folder = Path(sysconfig.get_path("stdlib"))
    while parts and (folder / parts[0]).is_dir():
        folder, parts = folder / parts[0], parts[1:]
    single = folder / f"{parts[0]}.py" if parts else folder / "__init__.py"
    return single if single.is_file() else folder / "__init__.py"


# ---------------------------------------------------------------- the corpus of this Python


def test_there_is_enough_to_learn_from(corpus: Corpus) -> None:
    assert len(corpus.train) + len(corpus.test) >= 2_000
    assert len(corpus.labels) >= 4
    assert corpus.labels == tuple(sorted(AREAS))
    train = Counter(row.label for row in corpus.train)
    test = Counter(row.label for row in corpus.test)
    assert set(train) == set(test) == set(corpus.labels)
    for label in corpus.labels:
        assert 0.15 < test[label] / (train[label] + test[label]) < 0.25
    assert max(test.values()) / test.total() < 0.35  # what guessing one area would score


def test_every_text_is_one_line_of_prose(corpus: Corpus) -> None:
    for row in (*corpus.train, *corpus.test):
        words = row.text.split(" ")
        assert MIN_WORDS <= len(words) <= MAX_WORDS
        assert row.text == " ".join(row.text.split())
        assert ">>>" not in row.text


def test_no_text_is_there_twice(corpus: Corpus) -> None:
    texts = [sameness(row.text) for row in (*corpus.train, *corpus.test)]
    assert len(texts) == len(set(texts))


def test_no_source_file_is_on_both_sides(corpus: Corpus) -> None:
    assert files_of(corpus.train).isdisjoint(files_of(corpus.test))


def test_no_test_text_repeats_a_run_of_words_of_training(corpus: Corpus) -> None:
    known = set().union(*(runs(row.text) for row in corpus.train))
    assert not [row for row in corpus.test if runs(row.text) & known]


def test_nothing_comes_from_tests_or_other_folders(corpus: Corpus) -> None:
    mapped = {name for names in AREAS.values() for name in names.split()}
    for row in (*corpus.train, *corpus.test):
        parts = row.source.split(".")
        assert parts[0] in mapped
        assert row.label == next(area for area in AREAS if parts[0] in AREAS[area].split())


def test_no_module_has_two_areas() -> None:
    names = [name for area in AREAS.values() for name in area.split()]
    assert len(names) == len(set(names))


def test_a_corpus_is_frozen_and_names_its_python(corpus: Corpus) -> None:
    assert corpus.python == ".".join(map(str, sys.version_info[:3]))
    with pytest.raises(FrozenInstanceError):
        corpus.digest = ""  # type: ignore[misc]


SCRIPT = """
import sys
from frostline.demo.corpus import build_corpus
print(build_corpus().digest)
print(sorted({"mailbox", "multiprocessing", "unittest", "xmlrpc", "_pyio"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ([], {"PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONUTF8": "0"}),
        (["-OO"], {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8"}),
    ],
)
def test_it_is_the_same_in_every_process_and_imports_nothing(
    corpus: Corpus, options: list[str], environment: dict[str, str]
) -> None:
    result = subprocess.run(
        [sys.executable, *options, "-c", SCRIPT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.split("\n") == [corpus.digest, "[]", ""]


@pytest.mark.slow
def test_the_order_of_the_file_system_does_not_matter(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards = module._source_files

    def backwards(folder: Path) -> Iterator[tuple[str, str, Path]]:
        return reversed(list(forwards(folder)))

    monkeypatch.setattr(module, "_source_files", backwards)
    assert build_corpus() == corpus


def test_the_digest_covers_text_label_source_and_side() -> None:
    row, other = Row("a", "b", "c"), Row("d", "e", "f")
    digests = {
        module._digest((row,), (other,)),
        module._digest((row, other), ()),
        module._digest((Row("x", "b", "c"),), (other,)),
        module._digest((Row("a", "x", "c"),), (other,)),
        module._digest((Row("a", "b", "x"),), (other,)),
    }
    assert len(digests) == 5
    content = b'[[["a", "b", "c"]], [["d", "e", "f"]]]'
    assert module._digest((row,), (other,)) == hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- reading source files


def test_source_is_read_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "json"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text('"""All that reads and writes JSON."""\n')
    (package / "tests" / "test_it.py").write_text('"""A test that is no part of it."""\n')
    (package / "tool.py").write_bytes(
        b'# -*- coding: latin-1 -*-\n"""Ein Werkzeug f\xfcr die Kommandozeile."""\n'
        b"raise SystemExit\n"
        b"try:\n    import fast\nexcept ImportError:\n"
        b"    class Slow:\n"
        b'        async def run(self):\n            """Run it without any hurry."""\n'
        b'            def inner():\n                """Run a part of it only."""\n'
    )
    (tmp_path / "turtle.py").write_text('"""A module that has no area here."""\n')
    files = sorted(module._source_files(tmp_path))
    assert [(name, label) for name, label, _ in files] == [("json", "text"), ("json.tool", "text")]
    texts = [text for name, _, path in files for text in module._docstrings(name, path)]
    assert texts == [
        ("json", "All that reads and writes JSON."),
        ("json.tool", "Ein Werkzeug für die Kommandozeile."),
        ("json.tool.Slow.run", "Run it without any hurry."),
        ("json.tool.Slow.run.inner", "Run a part of it only."),
    ]


def test_a_python_without_source_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"gives only 0 texts of 2000.*with its source files"):
        build_corpus()


@pytest.mark.parametrize("content", [b"def", b"\xff", b"# coding: nonsense\n", b"\0"])
def test_a_damaged_source_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "glob.py"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"glob\.py.*reinstall Python"):
        list(module._docstrings("glob", path))


# ---------------------------------------------------------------- cleaning


@pytest.mark.parametrize(
    ("docstring", "text"),
    [
        ("Return\n  the   next\tfree number.", "Return the next free number."),
        ("split(text, at=1) -> list\n\nSplit a text in two.", "Split a text in two."),
        ("Do this and that.\n\n>>> do(1)\n2\n\nThen rest.", "Do this and that. Then rest."),
        ("The words of it\n===============", "The words of it"),
        ("Too short this.", ""),
        ("1 + 1 = 2 or so", ""),
        ("", ""),
        ("w " * MAX_WORDS + "\n\nnot this one", ("w " * MAX_WORDS).strip()),
        ("One two three four. " + "w " * MAX_WORDS, "One two three four."),
        ("One. " + "w " * MAX_WORDS, "One. " + "w " * (MAX_WORDS - 2) + "w"),
    ],
)
def test_a_docstring_becomes_prose(docstring: str, text: str) -> None:
    assert clean(docstring) == text


@given(st.text())
def test_any_docstring_becomes_one_line_or_nothing(docstring: str) -> None:
    text = clean(docstring)
    assert text == " ".join(text.split())
    assert not text or MIN_WORDS <= len(text.split()) <= MAX_WORDS


def test_a_repeated_text_is_kept_once_and_never_under_two_labels() -> None:
    rows = [
        found("Open the file now", source="glob.b"),
        found("open  the \N{LATIN SMALL LIGATURE FI}le NOW", source="glob.a"),
        found("Return a copy of it", source="glob.c"),
        found("Return a copy of it", "text", "json.d"),
    ]
    assert drop_repeats(rows) == [rows[1]]


# ---------------------------------------------------------------- splitting


def test_runs_are_words_without_punctuation() -> None:
    assert runs("Close it, now!") == runs("close (it) now") == {("close", "it", "now")}
    ten = " ".join(f"w{at}" for at in range(SHARED_RUN + 2))
    assert len(runs(ten)) == 3
    assert runs(ten) & runs(f"other words {ten} and more")


def test_files_are_never_divided_and_echoes_of_training_leave_the_test() -> None:
    rows = [found(f"text {file} {at}", source=f"m{file}.f") for file in range(20) for at in range(5)]
    train, test = split_by_module(rows)
    assert len(test) == 20  # a fifth of 100, as four files of five
    assert {row.source for row in train}.isdisjoint({row.source for row in test})
    assert (train, test) == split_by_module(rows)

    echo = " ".join(f"w{at}" for at in range(SHARED_RUN))
    more = [
        *rows,
        found(f"first {echo}", source=train[0].source),
        found(f"second {echo}", source=test[0].source),
    ]
    train, test = split_by_module(more)
    assert any(echo in row.text for row in train)
    assert not any(echo in row.text for row in test)


def test_a_large_file_always_trains() -> None:
    rows = [found(f"text {at}", source="large.f") for at in range(15)]
    rows += [found(f"text {at} {file}", source=f"m{file}.f") for at in range(5) for file in range(17)]
    train, test = split_by_module(rows)
    assert sum(row.source == "large.f" for row in train) == 15
    assert len(test) == 20


# ---------------------------------------------------------------- writing


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def small(*texts: str) -> Corpus:
    rows = tuple(Row(text, "files", "glob") for text in texts)
    return Corpus(rows, rows[:1], ("files",), "3.11.0", "0")


def test_the_files_give_the_rows_back(corpus: Corpus, tmp_path: Path) -> None:
    paths = write_corpus(corpus, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["train.csv", "test.csv"]
    for path, rows in zip(paths, (corpus.train, corpus.test), strict=True):
        assert read(path) == [["text", "label"], *([row.text, row.label] for row in rows)]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["test.csv", "train.csv"]


def test_hard_texts_survive(tmp_path: Path) -> None:
    texts = ['say "no", then', "a,b;c\td", "=1+1", "Löwis 🐍 \N{ZERO WIDTH SPACE}", "'", " padded "]
    train, _ = write_corpus(small(*texts), str(tmp_path))
    assert [text for text, _ in read(train)[1:]] == texts
    assert b"\r" not in train.read_bytes()


def test_a_failed_write_leaves_the_old_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [path.read_bytes() for path in write_corpus(small("old text"), tmp_path)]

    def full(path: Path, rows: Sequence[Row]) -> None:
        path.write_text("half")
        if "test" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_csv", full)
    with pytest.raises(OutputError, match=r"cannot write the corpus.*No space left"):
        write_corpus(small("new text"), tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("train.csv", "test.csv")] == old
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the corpus"):
        write_corpus(small("a text"), tmp_path / "file")
