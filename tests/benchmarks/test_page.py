"""The page of figures in docs/ says what the kept results say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.page import PAGE, page
from benchmarks.results import save
from benchmarks.row import all_rows, rows_named
from tests.benchmarks.measured import result

if TYPE_CHECKING:
    from pathlib import Path

(TOP2,) = rows_named("top2")


def _lines(text: str) -> dict[str, str]:
    return {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}


def test_the_page_is_as_the_results_make_it() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make performance"


def test_every_row_has_a_line_of_nine_cells() -> None:
    lines = _lines(page())
    assert list(lines) == [row.name for row in all_rows()]
    assert {line.count("|") for line in lines.values()} == {10}


def test_a_row_that_was_not_measured_says_so(tmp_path: Path) -> None:
    assert all("| not measured |" in line for line in _lines(page(tmp_path)).values())
    assert "Nothing was measured yet." in page(tmp_path)


def test_a_measured_row_has_its_figures_and_its_machine(tmp_path: Path) -> None:
    save(result(TOP2, 5.0, 3.0, 4.5), tmp_path)
    text = page(tmp_path)
    assert _lines(text)["top2"].endswith(
        "| ≥ 4 | 4.50 (3.00–5.00) met | 2.00 s / 9.00 s | 0.750 / 0.500 | 100 MiB / 100 MiB | 2.0 × |"
    )
    assert "texts: made-up texts: `top2`" in text


def test_a_missed_target_is_said_so(tmp_path: Path) -> None:
    save(result(TOP2, 3.9), tmp_path)
    assert "3.90 (3.90–3.90) **missed**" in _lines(page(tmp_path))["top2"]
