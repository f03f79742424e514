"""``frostline check``: faults of freezing in what a plan makes of a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.options import FrozenModeOption


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, or a hub name.")],
    freeze: options.Freeze = None,
    train_only: options.TrainOnly = None,
    frozen_mode: options.FrozenModeChoice = FrozenModeOption.eval,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Training rows: the first ones run forward and backward once."),
    ] = None,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> int:
    """Look for faults of freezing; exit status 1 for an error or a warning, notes do not count."""
    from frostline.cli.render import print_json, print_text
    from frostline.training.checking import check_checkpoint

    findings = check_checkpoint(
        model,
        data,
        freeze=freeze,
        train_only=train_only,
        frozen_mode=frozen_mode.value,
        text_columns=options.columns(text_column),
        label_columns=options.columns(label_column),
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        print_json(findings.to_dict())
    else:
        print_text(str(findings))
    return 0 if findings.ok else 1
