"""Text, tables and JSON on the terminal; the only place that prints, so that all of it is escaped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from frostline.escaping import printable, printable_json, printable_lines

if TYPE_CHECKING:
    from rich.table import Table

    from frostline.evidence.inspection import Inspection
    from frostline.evidence.proof import Proof


_PIPE_WIDTH = 200  # characters; no table of ours is wider


def print_json(values: Any) -> None:
    """Print plain values as JSON on standard output."""
    from frostline.training.result import finite

    print(printable_json(json.dumps(finite(values), indent=2, ensure_ascii=False)))


def print_text(*texts: str) -> None:
    """Print texts of one or several lines on standard output, wrapped by nobody."""
    for text in texts:
        print(printable_lines(text), flush=True)


def print_error(text: str) -> None:
    """Print a message of one or several lines on standard error."""
    print(printable_lines(text), file=sys.stderr)


def table(titles: Iterable[str], rows: Iterable[Iterable[str]], right: Iterable[str] = ()) -> Table:
    """Make a table whose cells are shown as they are (no markup is read in them)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in titles:
        result.add_column(title, justify="right" if title in set(right) else "left", no_wrap=True)
    for row in rows:
        result.add_row(*(Text(printable(cell)) for cell in row))
    return result


def print_table(titles: Iterable[str], rows: Iterable[Iterable[str]], right: Iterable[str] = ()) -> None:
    """Print a table on standard output; in a pipe as wide as it needs to be."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    with console.capture() as drawn:
        console.print(table(titles, rows, right))
    for line in drawn.get().splitlines():  # with the colours of a terminal's table, so escaped before
        print(line.rstrip(), flush=True)


def print_inspection(inspection: Inspection) -> None:
    """Print what `inspect` found: the verdict, the units, and what the table does not show."""
    from frostline.evidence.inspection import COLUMNS, RIGHT_ALIGNED, row_cells

    print_text(inspection.verdict, "")
    print_table(COLUMNS, (row_cells(row) for row in inspection.rows), RIGHT_ALIGNED)
    if inspection.notes:
        print_text("", *inspection.notes)


def print_proof(proof: Proof) -> None:
    """Print a proof: its line, and a row per unit."""
    rows = [
        (unit.name, unit.verdict, f"{unit.frozen}", f"{unit.moved}", f"{unit.tensors}")
        for unit in reversed(proof.units)
    ]
    titles = ("unit", "verdict", "had to stay", "moved", "tensors")
    print_table(titles, rows, titles[2:])
    print_text("", f"Proof: {proof} ({proof.cost}).")


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Metrics in one line, the loss last."""
    ordered = sorted(metrics.items(), key=lambda pair: (pair[0] == "loss", 0))
    return ", ".join(f"{name.replace('_', ' ').replace('f1', 'F1')} {value:.4f}" for name, value in ordered)
