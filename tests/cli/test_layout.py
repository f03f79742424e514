"""Tables and sentences on terminals of every width: nothing is ever cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from frostline.cli.layout import lay_out, wrap

TITLES = ("unit", "trains", "frozen mode", "memory")
ROWS = [("head", "yes", "-", "3.08 kB"), ("layers 0-11", "no", "eval", "12 × 7.10 MB")]
RIGHT = ("memory",)


def test_a_table_that_fits_is_whole() -> None:
    whole = [
        "unit         trains  frozen mode        memory",
        "──────────────────────────────────────────────",
        "head         yes     -                 3.08 kB",
        "layers 0-11  no      eval         12 × 7.10 MB",
    ]
    assert lay_out(TITLES, ROWS, right=RIGHT) == whole
    assert lay_out(TITLES, ROWS, 46, right=RIGHT, minor=("memory",)) == whole


def test_heads_wrap_before_columns_go() -> None:
    long = ["much memory of each unit", *TITLES[1:]]
    assert lay_out(long, [("a" * 40, "yes", "-", "b" * 14)], 72)[:3] == [
        "                                                  frozen",
        "much memory of each unit                  trains  mode    memory",
        "─" * 72,
    ]


def test_columns_that_matter_less_go_first_and_are_named() -> None:
    rows = [("head", "yes", "-", "x" * 60)]
    lines = lay_out(TITLES, rows, 72, minor=("memory", "frozen mode"))
    assert lines[0].split() == ["unit", "trains", "frozen", "mode"]
    assert lines[-1] == "Left out at 72 columns: memory."
    # What went first comes back where it was no hindrance.
    lines = lay_out(TITLES, rows, 72, minor=("frozen mode", "memory"))
    assert lines[-1] == "Left out at 72 columns: memory."


def test_on_a_narrow_terminal_rows_become_lines() -> None:
    lines = lay_out(TITLES, ROWS, 40, minor=("memory",))
    assert lines == [
        "head",
        "  trains: yes; memory: 3.08 kB",
        "layers 0-11",
        "  trains: no; frozen mode: eval",
        "  memory: 12 × 7.10 MB",
    ]


def test_so_they_do_where_what_matters_does_not_fit() -> None:
    rows = [("n" * 90, "yes", "-", "")]
    assert lay_out(TITLES, rows, 80, minor=("memory",)) == ["n" * 90, "  trains: yes"]


def test_wide_signs_count_twice() -> None:
    lines = lay_out(("label", "rows"), [("电影", "1"), ("film", "2")])
    assert lines[2:] == ["电影   1", "film   2"]


def test_without_rows_the_heads_stand() -> None:
    assert lay_out(("a", "b c"), [], 80) == ["a  b c", "──────"]


CELL = st.text(alphabet="ab é电", min_size=1, max_size=30).map(lambda text: "_".join(text.split()) or "x")


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=4), st.integers(1, 120))
def test_nothing_is_cut(rows: list[tuple[str, ...]], width: int) -> None:
    minor = ("memory", "frozen mode")
    lines = lay_out(TITLES, rows, width, right=RIGHT, minor=minor)
    left_out = lines[-1] if lines and lines[-1].startswith("Left out") else ""
    for row in rows:
        for title, cell in zip(TITLES, row, strict=True):
            assert title in left_out or any(cell in line for line in lines)
    longest = max((cell_len(f"  frozen mode: {cell}") for row in rows for cell in row), default=0)
    assert all(cell_len(line) <= max(width, longest, 38) for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_a_sentence_breaks_at_its_blanks() -> None:
    assert list(wrap("  one two three", 9)) == ["  one two", "  three"]
    assert list(wrap("one two three", 7, "    ")) == ["one two", "    three"]
    assert list(wrap("in /a/very/long/path now", 8)) == ["in", "/a/very/long/path", "now"]
    assert list(wrap("two  blanks stay", 80)) == ["two  blanks stay"]
    assert list(wrap("", 80)) == [""]


@given(st.text(alphabet="ab /", max_size=60), st.integers(1, 40))
def test_a_sentence_keeps_its_words(text: str, width: int) -> None:
    lines = list(wrap(text, width))
    assert " ".join(lines).split() == text.split()
    assert all(cell_len(line) <= width or len(line.split()) <= 1 for line in lines)
