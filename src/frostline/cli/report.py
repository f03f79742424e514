"""``frostline report``: a run as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.pages import write_page
from frostline.cli.render import print_text


def report(
    run: Annotated[str, typer.Argument(metavar="DIR", help="The folder that a run left.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("frostline-report.html"),
) -> None:
    """Write a page of a training run: what stayed, what moved how far, curves, timings, and how to do it again."""
    from frostline.runs.run_page import run_page

    write_page(out, run_page(run))
    print_text(f"Page: {out}")
