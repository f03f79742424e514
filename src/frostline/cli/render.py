"""Text, tables and JSON on the terminal; the only place that prints, so that all of it is escaped."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from frostline.base.escaping import printable, printable_json, printable_lines
from frostline.base.json import finite
from frostline.cli.layout import lay_out, wrap

if TYPE_CHECKING:
    from frostline.evidence.inspect.inspection import Inspection
    from frostline.evidence.proof.proof import Proof


def json_text(values: Any) -> str:
    """Write plain values as JSON that a terminal may show."""
    return printable_json(json.dumps(finite(values), indent=2, ensure_ascii=False))


def print_json(values: Any) -> None:
    """Print plain values as JSON on standard output."""
    print(json_text(values))


def print_answer(found: Any, *, as_json: bool, show: Callable[[], None] | None = None) -> None:
    """Print a result as JSON, or as text.

    Args:
        found: The result; it has a `to_dict`.
        as_json: Whether JSON was asked for.
        show: Prints it as text; by default it is printed as `str` gives it.
    """
    if as_json:
        print_json(found.to_dict())
    elif show is not None:
        show()
    else:
        print_text(str(found))


def print_text(*texts: str, whole: bool = False) -> None:
    """Print texts on standard output, wrapped at words on a terminal.

    Args:
        *texts: Each of one line or several.
        whole: Whether lines stay as they are, since they are there to be copied.
    """
    width = None if whole else terminal_width()
    for line in (line for text in texts for line in printable_lines(text).split("\n")):
        for part in [line] if width is None else wrap(line, width):
            print(part, flush=True)


def print_error(text: str) -> None:
    """Print a message of one or several lines on standard error."""
    print(printable_lines(text), file=sys.stderr)


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = (), minor: Sequence[str] = ()
) -> None:
    """Print a table on standard output, laid out for the terminal; see `lay_out`."""
    rule = "─" if sys.stdout.encoding.lower().startswith("utf") else "-"
    cells = ([printable(cell) for cell in row] for row in rows)
    print_text(*lay_out(titles, cells, terminal_width(), right=right, minor=minor, rule=rule))


def terminal_width() -> int | None:
    """Columns of the terminal, or what ``$COLUMNS`` says; None in a pipe."""
    return shutil.get_terminal_size((0, 0)).columns or None


def print_inspection(inspection: Inspection) -> None:
    """Print what `inspect` found: the verdict, the units, and what the table does not show."""
    from frostline.evidence.inspect.inspection import COLUMNS, MINOR, RIGHT_ALIGNED, row_cells

    print_text(inspection.verdict, "")
    print_table(COLUMNS, (row_cells(row) for row in inspection.rows), RIGHT_ALIGNED, MINOR)
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
