"""``frostline verify``: the proof of a run, checked again from its files."""

from __future__ import annotations

from typing import Annotated

import typer

from frostline.cli import options


def verify(
    run: Annotated[str, typer.Argument(metavar="DIR", help="The folder that a run left.")],
    base: Annotated[
        str | None, typer.Option(metavar="BASE", help="What it started from; by default what metrics.json names.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check the proof of a training run again, from the files alone; the status is 1 where they contradict it."""
    from frostline.cli.render import print_json, print_text
    from frostline.evidence.runproof import verify_run

    found = verify_run(run, base)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(str(found))
    if not found.ok:
        raise typer.Exit(1)
