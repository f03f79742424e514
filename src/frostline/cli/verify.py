"""``frostline verify``: the proof of a run, checked again from its files."""

from __future__ import annotations

from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.render import print_answer


def verify(
    run: Annotated[str, typer.Argument(metavar="DIR", help="The folder that a run left.")],
    base: Annotated[
        str | None, typer.Option(metavar="BASE", help="What it started from; by default what metrics.json names.")
    ] = None,
    no_base: Annotated[
        bool, typer.Option("--no-base", help="Compare with no base, as for a model that started from none.")
    ] = False,
    digest: Annotated[
        str | None, typer.Option(metavar="HEX", help="The digest of the run's files, as 'train' printed it.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check the proof of a training run again, from the files alone; the status is 1 where they contradict it."""
    from frostline.evidence.proof.run_proof import verify_run

    found = verify_run(run, base, no_base=no_base, digest=digest)
    print_answer(found, as_json=as_json)
    if not found.ok:
        raise typer.Exit(1)
