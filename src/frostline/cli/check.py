"""``frostline check``: faults of freezing in what a plan makes of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli import options
from frostline.cli.options import FrozenModeOption
from frostline.cli.render import print_answer
from frostline.errors import SettingsError

if TYPE_CHECKING:
    from frostline.evidence.explain.explain import Explanation

_ROWS = 8  # of the batch that --data gives


def check(
    model: options.ModelArgument = None,
    named: options.ModelOption = None,
    freeze: options.Freeze = None,
    train_only: options.TrainOnly = None,
    frozen_mode: options.FrozenModeChoice = FrozenModeOption.eval,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Training rows: the first ones run forward and backward once."),
    ] = None,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    explain: Annotated[
        str | None,
        typer.Option(metavar="MESSAGE", help="Say instead what a message of torch, transformers or PEFT means."),
    ] = None,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> int:
    """Look for faults of freezing; exit status 1 for an error or a warning, notes do not count."""
    if explain is not None:
        given = _explanation(explain, model if named is None else options.model_of(model, named))
        print_answer(given, as_json=as_json)
        return 0
    from frostline.plan.plan import Plan
    from frostline.runs.first_batch import Rows, check_checkpoint

    rows = None
    if data is not None:
        texts, labels = options.columns(text_column), options.columns(label_column)
        rows = Rows(data=data, count=_ROWS, text_columns=texts, label_columns=labels)
    plan = Plan.named(freeze, train_only, frozen_mode.value)
    findings = check_checkpoint(options.model_of(model, named), plan, rows, trust_remote_code=trust_remote_code)
    print_answer(findings, as_json=as_json)
    return 0 if findings.ok else 1


def _explanation(message: str, model: str | None) -> Explanation:
    """What a message means, and what it is about in a model.

    Raises:
        SettingsError: If the message is not known.
    """
    from frostline.evidence.explain.explain import MESSAGES_PAGE
    from frostline.evidence.explain.explain import explain as explained
    from frostline.evidence.inspect.inspection import open_skeleton

    found = explained(message, None if model is None else open_skeleton(model)[0])
    if found is None:
        said = " ".join(message.split())[:80]
        raise SettingsError(
            f"'{said}' is not among the messages that freezing leads to.\n"
            f"Give the last line as it was printed, look it up in {MESSAGES_PAGE}, or run 'frostline check MODEL'."
        )
    return found
