"""``frostline delta``: keep only what changed, and rebuild the whole from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.bar import byte_bar
from frostline.cli.render import print_answer

delta = options.group("delta", "Keep only the tensors that fine-tuning changed, and rebuild the whole from them.")


@delta.command()
def save(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Where training started: a folder, or a hub name.")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="Where it ended, likewise.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The delta's folder, which must be new.")],
    as_json: options.Json = False,
) -> None:
    """Save what TUNED has and BASE does not."""
    from frostline.checkpoints.delta.delta import save_delta

    with byte_bar("comparing and hashing") as report:
        saved = save_delta(base, tuned, options.place(out), report=report)
    print_answer(saved, as_json=as_json)


@delta.command()
def load(
    folder: Annotated[str, typer.Argument(metavar="OUT", help="The delta's folder.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to rebuild, which must be new.")],
    base: Annotated[str | None, typer.Option(metavar="BASE", help="The base; by default what the delta names.")] = None,
    as_json: options.Json = False,
) -> None:
    """Rebuild the folder that a delta was saved from, bit by bit."""
    from frostline.checkpoints.delta.delta import rebuild_delta

    with byte_bar("hashing") as report:
        rebuilt = rebuild_delta(folder, options.place(out), base, report=report)
    print_answer(rebuilt, as_json=as_json)
