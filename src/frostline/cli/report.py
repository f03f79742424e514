"""``frostline report``: a run or a sweep as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.pages import write_page
from frostline.cli.render import print_text


def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder that a run or a sweep left.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("frostline-report.html"),
) -> None:
    """Write a page of a training run (what stayed, what moved how far, curves, timings) or of a sweep."""
    from frostline.runs.output_folder import SWEEP_FILE
    from frostline.runs.run_page import run_page
    from frostline.runs.sweep.saved_sweep import read_sweep

    place = options.place(Path(folder))
    write_page(out, read_sweep(place).to_html() if (place / SWEEP_FILE).exists() else run_page(folder))
    print_text(f"Page: {out}")
