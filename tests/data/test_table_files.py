"""Files that are read, and that are refused."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frostline.compat.tables import is_mixed
from frostline.data.sources import read_table
from tests.data.conftest import CHINESE, GERMAN

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [
    {"text": GERMAN, "label": "gut"},
    {"text": CHINESE, "label": "007"},
    {"text": "NA", "label": "null"},
    {"text": 'she said "no", and\nleft\r\nat once', "label": "None"},
    {"text": "  leading and trailing  ", "label": "1.50"},
]


def as_csv(rows: list[dict[str, str]], delimiter: str = ",", ending: str = "\n") -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter, lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read(source: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(source, role="train").to_list()
    return rows


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("a.csv", ","), ("A.CSV", ","), ("a.tsv", "\t"), ("ümläut [1].csv", ";")],
)
def test_delimited_cells_come_back_as_written(
    write: Callable[..., str], name: str, delimiter: str, mark: str, ending: str
) -> None:
    assert read(write(name, mark + as_csv(ROWS, delimiter, ending))) == ROWS


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSON"])
def test_json_lines(write: Callable[..., str], name: str) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    assert read(write(name, "\ufeff" + lines + "\n\n")) == ROWS


def test_json_array(write: Callable[..., str]) -> None:
    assert read(write("a.json", " \n" + json.dumps(ROWS, indent=1))) == ROWS
    assert read(write("b.json", json.dumps(ROWS))) == ROWS


def test_json_texts_that_look_like_dates_stay_texts(write: Callable[..., str]) -> None:
    rows = [{"text": "2020-01-01"}, {"text": "2020-01-02T00:00:00"}]
    source = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read(source) == rows
    assert read(source) == rows  # from the cache


def test_json_types_are_kept(write: Callable[..., str]) -> None:
    rows = [{"text": "a", "label": [1, 2], "x": 1.5}, {"text": "b", "label": [], "x": 2.0}]
    assert read(write("a.jsonl", "\n".join(map(json.dumps, rows)))) == rows


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1, 2.5, None], "float64"), ([2**63, 1], "float64"), ([2**53 + 1, 0.5], "float64"), ([True, None], "bool")],
)
def test_json_numbers(write: Callable[..., str], values: list[Any], dtype: str) -> None:
    dataset = read_table(write("a.jsonl", "\n".join(json.dumps({"x": value}) for value in values)), role="train")
    assert dataset.features["x"].dtype == dtype
    assert dataset["x"][:] == [value if value is None or dtype == "bool" else float(value) for value in values]


@pytest.mark.parametrize("values", [[1.5, True], [True, 1], [1, "a"], [[1], "a"]])
def test_json_values_of_several_types(write: Callable[..., str], values: list[Any]) -> None:
    dataset = read_table(write("a.jsonl", "\n".join(json.dumps({"x": value}) for value in values)), role="train")
    assert is_mixed(dataset.features["x"])


def test_json_objects_without_anything_in_them(write: Callable[..., str]) -> None:
    assert read_table(write("a.jsonl", "{}\n{}\n"), role="train").column_names == []


def test_json_column_that_is_null_at_first(write: Callable[..., str]) -> None:
    rows = [{"text": "x" * 1000, "label": None}] * 11_000 + [{"text": "b", "label": "c"}]
    dataset = read_table(write("a.jsonl", "\n".join(map(json.dumps, rows))), role="train")
    assert dataset[-1] == rows[-1]


def test_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame["kind"] = pd.Categorical(["a", "b", "a", "b", "a"])
    frame.to_parquet(tmp_path / "a.parquet")
    rows = read(str(tmp_path / "a.parquet"))
    assert [{k: row[k] for k in ("text", "label")} for row in rows] == ROWS
    assert [row["kind"] for row in rows] == ["a", "b", "a", "b", "a"]


def test_blank_lines_and_unnamed_columns(write: Callable[..., str]) -> None:
    source = write("a.csv", "\n,text\n\n0,a\n   \n1,b\n\n")
    assert read(source) == [{"Unnamed: 0": "0", "text": "a"}, {"Unnamed: 0": "1", "text": "b"}]


def test_one_column_keeps_rows_of_white_space(write: Callable[..., str]) -> None:
    source = write("a.csv", 'text\na\n  \n""\nb\n')
    for _ in range(2):
        assert [row["text"] for row in read(source)] == ["a", "  ", "", "b"]


def test_very_long_text(write: Callable[..., str]) -> None:
    text = "ä" * 200_000
    assert read(write("a.csv", f"text,label\n{text},x\n")) == [{"text": text, "label": "x"}]


def test_tsv_with_plain_quotes(write: Callable[..., str]) -> None:
    content = 'text\tlabel\n"Nein!" sagt er\ta\n"offen\tb\nund "hier"\tc\n"\td\n'
    expected = ['"Nein!" sagt er', '"offen', 'und "hier"', '"']
    for _ in range(2):
        assert [row["text"] for row in read(write("a.tsv", content))] == expected


def test_tsv_with_quoted_line_breaks(write: Callable[..., str]) -> None:
    source = write("a.tsv", 'text\tlabel\n"one\ntwo"\ta\n"say ""hi"""\tb\n')
    assert [row["text"] for row in read(source)] == ["one\ntwo", 'say "hi"']


def test_edited_in_place_with_the_same_time_stamp(write: Callable[..., str]) -> None:
    source = write("a.csv", "text\nold\n")
    stamp = Path(source).stat().st_mtime_ns
    assert read(source) == [{"text": "old"}]
    write("a.csv", "text\nnew\n")
    os.utime(source, ns=(stamp, stamp))
    assert read(source) == [{"text": "new"}]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_a_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    frame = pd.DataFrame(ROWS)
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix in {".csv", ".tsv"}:
        path.write_text(as_csv(ROWS, "," if suffix == ".csv" else "\t"), encoding="utf-8", newline="")
    else:
        frame.to_json(path, orient="records", lines=suffix == ".jsonl")
    plain_open = Path.open

    def open_and_remove(self: Path, *args: Any, **kwargs: Any) -> Any:
        file = plain_open(self, *args, **kwargs)
        if self == path:
            self.unlink()  # whoever opens it again finds nothing
        return file

    monkeypatch.setattr(Path, "open", open_and_remove)
    assert read(str(path)) == ROWS
    assert not path.exists()


def test_second_run_reads_the_cache(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    source = write("a.csv", "text\nold\n")
    first = read_table(source, role="train")
    monkeypatch.setattr(csv, "reader", None)
    second = read_table(source, role="train")
    assert second.to_list() == first.to_list()
    assert second._fingerprint == first._fingerprint
    assert second.cache_files


def test_damaged_cache_is_built_again(write: Callable[..., str], cache: Path) -> None:
    source = write("a.csv", "text\nold\n")
    read(source)
    for file in cache.rglob("*.arrow"):
        file.unlink()
    assert read(source) == [{"text": "old"}]


def test_nothing_is_printed(
    write: Callable[..., str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    read(write("a.csv", "text\nold\n"))
    read(write("a.jsonl", '{"text": "2020-01-01", "x": 1}\n{"text": "b", "x": "1"}'))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))
CELL = TEXT | st.sampled_from(["NA", "None", "null", "nan", "", " ", "007", '"', "1e5", "\r", "\n"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1)),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
def test_any_text_survives_a_round_trip(tmp_path: Path, rows: list[list[str]], suffix: str) -> None:
    if suffix == ".tsv":  # with tabs in texts of several lines, quoting is undecidable
        rows = [[cell.replace("\t", " ") for cell in row] for row in rows]
    path = tmp_path / f"any{suffix}"
    names = [f"c{index}" for index in range(len(rows[0]))]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL)
        writer.writerows([names, *rows])
    dataset = read_table(str(path), role="train")
    assert [list(row.values()) for row in dataset] == rows
    assert dataset.cache_files


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(CELL, min_size=1))
def test_any_text_survives_minimal_quoting(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([text, "x"] for text in texts)])
    assert [row["text"] for row in read(str(path))] == texts


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(CELL, min_size=1))
def test_any_text_survives_json_lines(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "any.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert [row["text"] for row in read(str(path))] == texts


# Files that are refused.

BAD = {
    "empty": ("a.csv", "", ["a.csv", "is empty"]),
    "blank": ("a.csv", "\n\n  \n", ["is empty", "column names"]),
    "empty json": ("a.jsonl", "\n", ["is empty"]),
    "no bytes json": ("a.jsonl", "", ["is empty"]),
    "header only": ("a.csv", "text,label\n", ["has a header ('text', 'label') but no rows"]),
    "latin-1": (
        "a.csv",
        b"text\nfein\n" + "schön\n".encode("cp1252"),
        ["not UTF-8: line 3", "0xf6", "iconv -f WINDOWS-1252 -t UTF-8"],
    ),
    "latin-1 header": ("a.csv", "größe\nx\n".encode("cp1252"), ["line 1", "0xf6", "iconv"]),
    "latin-1 json": ("a.jsonl", b'{"text": "a"}\n{"text": "\xe4"}\n', ["line 2", "0xe4"]),
    "cut in a character": ("a.csv", "text\nö".encode()[:-1], ["line 2", "0xc3"]),
    "utf-16": ("a.tsv", "text\tlabel\nä\tb\n".encode("utf-16"), ["UTF-16", "iconv -f UTF-16"]),
    "utf-32": ("a.tsv", "text\tlabel\nä\tb\n".encode("utf-32"), ["UTF-32", "iconv -f UTF-32"]),
    "gzip": ("a.csv", gzip.compress(b"text\na\n"), ["is packed by gzip, and no text.\nUnpack it first."]),
    "zip": ("a.jsonl", b"PK\x03\x04\x14\xff\xfe", ["is packed by zip"]),
    "image": ("a.csv", b"\x89PNG\r\n\x1a\n\x00", ["is a PNG image, and no text.\nName a .csv file."]),
    "random": ("a.csv", bytes(range(200, 0, -1)), ["is no text", "0xc8 in line 1", "control characters such as 0x7f"]),
    "nul": ("a.csv", "text\na\nb\0\n", ["line 3 holds a NUL"]),
    "too many": (
        "a.csv",
        "text,label\na,b\nyes, no,b\n",
        ["line 3 has 3 fields", "names 2 ('text', 'label')", "contains a comma"],
    ),
    "all too many": ("a.csv", "text,label\n1,a,b\n2,c,d\n", ["line 2 has 3 fields"]),
    "too many after line breaks": (
        "a.csv",
        'text,label\n"a\nb\nc",d\ne,f,g\n',
        ["line 5 has 3 fields"],
    ),
    "too few": (
        "a.csv",
        "text,label\na,b\nc\nd,e\n",
        ["line 3 has 1 field ", "Add what is missing"],
    ),
    "tsv too many": ("a.tsv", "text\tlabel\na\tb\tc\n", ["line 2 has 3 fields", "a tab"]),
    "unclosed quote": (
        "a.csv",
        'text,label\na,b\n"c,d\ne,f\n',
        ["starts in line 3", "double quote", "twice"],
    ),
    "quote in the middle": (
        "a.csv",
        'text,label\n"foo,A\nbar,B\n"baz",C\n',
        ["starts in line 2", "up to line 4"],
    ),
    "unclosed quote in header": ("a.csv", '"text,label\na,b\n', ["starts in line 1"]),
    "same name twice": ("a.csv", "text,label,text\na,b,c\n", ["'text' twice", "columns 1 and 3"]),
    "broken json": (
        "a.jsonl",
        '{"text": "a"}\n\n{"text": "b"\n',
        ["line 3 is not JSON", "character", '{"text": "b"'],
    ),
    "json list line": ("a.jsonl", '{"text": "a"}\n["b"]\n', ["line 2 is no object", '["b"]']),
    "json pretty": ("a.json", '{\n "text": "a"\n}\n', ["line 1 is not JSON"]),
    "json array broken": ("a.json", '[{"text": "a"},\n{"text": }]', ["line 2 is not JSON"]),
    "json array of texts": ("a.json", '["a", "b"]', ["element 1 of the array is no object"]),
    "json empty array": ("a.json", "[]", ["is empty"]),
    "json surrogate": ("a.jsonl", '{"text": "a"}\n{"text": "b\\ud83d"}', ["line 2", "half a character", "\\ud83d"]),
    "json nested": ("a.jsonl", "[" * 100_000, ["nested too deeply"]),
    "json line nested": ("a.jsonl", '{"a":' * 100_000, ["line 1 cannot be used", "nested too deeply"]),
    "no parquet": ("a.parquet", b"PAR1 no, it is not", ["damaged or no Parquet"]),
    "unsupported": ("a.txt", "a\nb", [".txt files are not supported", ".csv, .tsv, .jsonl"]),
    "no ending": ("table", "a\nb", ["a file without an ending is not supported", ".parquet"]),
    "compressed": ("a.csv.gz", b"\x1f\x8b", [".gz files are not supported"]),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(write: Callable[..., str], data_error: Callable[..., Any], case: str) -> None:
    name, content, phrases = BAD[case]
    source = write(name, content)
    for _ in range(2):  # a refusal leaves nothing behind
        with data_error(name, *phrases):
            read(source)


def test_far_away_faults_have_the_right_line(write: Callable[..., str], data_error: Callable[..., Any]) -> None:
    rows = "text,label\n" + "ö" * 70 + ",x\n"
    head = (rows.partition("\n")[0] + "\n" + ("ö" * 70 + ",x\n") * 30_000).encode()
    with data_error("line 30002 ", "0xe4"):
        read(write("a.csv", head + b"\xe4,x\n"))
    with data_error("line 30002 has 3"):
        read(write("b.csv", head + b"a,b,c\n"))
    with data_error("line 30002 holds a NUL"):
        read(write("c.csv", head + b"a\0,c\n"))


def test_damaged_parquet(tmp_path: Path, data_error: Callable[..., Any]) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"text {n}" for n in range(500)]})
    pq.write_table(table, path, use_dictionary=False, write_page_checksum=True)
    raw = bytearray(path.read_bytes())
    raw[4:400] = bytes(396)
    path.write_bytes(raw)
    with data_error("a.parquet", "damaged"):
        read(str(path))


def test_parquet_without_rows(tmp_path: Path, data_error: Callable[..., Any]) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with data_error("has columns ('text') but no rows"):
        read(str(tmp_path / "a.parquet"))


def test_parquet_with_a_name_twice(tmp_path: Path, data_error: Callable[..., Any]) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with data_error("'text' twice"):
        read(str(tmp_path / "a.parquet"))


def test_a_file_that_may_not_be_read(
    write: Callable[..., str], data_error: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write("a.csv", "text\na\n")
    plain_open = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "a.csv":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return plain_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with data_error("permission denied", "a.csv"):
        read(source)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError("Not enough disk space. Needed: 1")],
)
def test_a_full_disk(
    write: Callable[..., str],
    data_error: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    error: OSError,
) -> None:
    from datasets import arrow_writer

    def full(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(arrow_writer.ArrowWriter, "write_table", full)
    with data_error("no space left in the datasets cache", str(cache), "HF_DATASETS_CACHE"):
        read(write("a.csv", "text\na\nb\n"))


@pytest.mark.parametrize(
    ("number", "place"), [(errno.EACCES, "csv"), (errno.EACCES, ".."), (errno.EROFS, "../.."), (errno.ENOENT, "..")]
)
def test_a_cache_that_cannot_be_written(
    write: Callable[..., str],
    data_error: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    number: int,
    place: str,
) -> None:
    """It, or a folder on the way to it, as where there is no home."""
    refused = os.path.normpath(cache / place)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number), refused)

    source = write("a.csv", "text\na\n")
    monkeypatch.setattr(os, "makedirs", refuse)
    reason = os.strerror(number).lower()
    with data_error(f"cache, {str(cache)!r}, cannot be written ({reason}: {refused!r}).\nSet HF_DATASETS_CACHE"):
        read(source)
