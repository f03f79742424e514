"""``frostline diff``: what became of each unit and tensor between two checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli import options
from frostline.cli.bar import byte_bar
from frostline.cli.render import print_json, print_table, print_text

if TYPE_CHECKING:
    from frostline.checkpoints.delta.compare import Change
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
    as_json: options.Json = False,
) -> None:
    """Compare two checkpoints tensor by tensor, in constant memory."""
    from frostline.evidence.diff.diff import diff as compare

    with byte_bar("comparing") as report:
        found = compare(
            base, tuned, expect_frozen=expect_frozen, expect_moved=expect_moved, allow_cast=allow_cast, report=report
        )
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, tensors=tensors)
        if found.violations:
            print_text("", *(f"Violation: {violation}." for violation in found.violations))
        elif expect_frozen is not None or expect_moved is not None:
            print_text("", "Everything is as expected.")
    if not found.ok:
        raise typer.Exit(1)


def _print(found: Diff, *, tensors: bool) -> None:
    print_text(found.verdict, "")
    figures = ("max change", "relative L2", "cosine")
    if tensors:
        print_table(
            ("tensor", "verdict", *figures, "note"),
            ((row.name, row.verdict, *_cells(row.change), row.note) for row in found.tensors),
            figures,
            ("cosine", "relative L2", "note", "max change"),
        )
    else:
        print_table(
            ("unit", "verdict", "tensors", *figures, "of which"),
            (
                (
                    unit.name,
                    unit.verdict,
                    f"{unit.tensors}",
                    *_cells(unit.change),
                    ", ".join(f"{count} {word}" for word, count in unit.counts.items()) if len(unit.counts) > 1 else "",
                )
                for unit in reversed(found.units)
            ),
            ("tensors", *figures),
            ("cosine", "relative L2", "tensors", "max change"),
        )
    if found.note:
        print_text("", found.note)


def _cells(change: Change | None) -> tuple[str, str, str]:
    if change is None:
        return "-", "-", "-"
    relative, cosine = change.relative_l2, change.cosine
    return (
        f"{change.max_abs:.3g}",
        "-" if relative is None else f"{relative:.3g}",
        "-" if cosine is None else f"{cosine:.6f}",
    )
