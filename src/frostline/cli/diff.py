"""``frostline diff``: what became of each unit and tensor between two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli import options
from frostline.cli.bar import byte_bar
from frostline.cli.pages import write_page
from frostline.cli.render import print_json, print_table, print_text

if TYPE_CHECKING:
    from frostline.evidence.diff.diff import Diff


def diff(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Where training started: a folder, or a hub name.")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="Where it ended: a folder, or a hub name.")],
    expect_frozen: Annotated[
        str | None, typer.Option(metavar="SELECTORS", help="Parameters that must be identical; else the status is 1.")
    ] = None,
    expect_moved: Annotated[
        str | None, typer.Option(metavar="SELECTORS", help="Parameters that must all differ; else the status is 1.")
    ] = None,
    allow_cast: Annotated[bool, typer.Option("--allow-cast", help="What is only cast counts as frozen.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="A row per tensor, not per unit.")] = False,
    html: options.Html = None,
    as_json: options.Json = False,
) -> None:
    """Compare two checkpoints tensor by tensor, in constant memory."""
    from frostline.evidence.diff.diff import diff as compare

    with byte_bar("comparing") as report:
        found = compare(
            base, tuned, expect_frozen=expect_frozen, expect_moved=expect_moved, allow_cast=allow_cast, report=report
        )
    if html is not None:
        write_page(html, found.to_html())
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, tensors=tensors)
        if found.violations:
            print_text("", *(f"Violation: {violation}." for violation in found.violations))
        elif expect_frozen is not None or expect_moved is not None:
            print_text("", "Everything is as expected.")
    if html is not None and not as_json:
        print_text("", f"Page: {html}")
    if not found.ok:
        raise typer.Exit(1)


def _print(found: Diff, *, tensors: bool) -> None:
    from frostline.evidence.diff.view import FIGURES, TENSOR_COLUMNS, UNIT_COLUMNS, tensor_cells, unit_cells

    print_text(found.verdict, "")
    if tensors:
        minor = ("cosine", "relative L2", "note", "max change")
        print_table(TENSOR_COLUMNS, map(tensor_cells, found.tensors), FIGURES, minor)
    else:
        minor = ("cosine", "relative L2", "tensors", "max change")
        print_table(UNIT_COLUMNS, map(unit_cells, reversed(found.units)), FIGURES, minor)
    if found.note:
        print_text("", found.note)
