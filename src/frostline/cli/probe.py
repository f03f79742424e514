"""``frostline probe``: take one real training step in memory, and tell what it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli import options
from frostline.cli.options import DeviceOption, DtypeOption, FrozenModeOption, ProblemOption
from frostline.cli.render import print_answer, print_table, print_text

if TYPE_CHECKING:
    from frostline.evidence.probe.movement import Probe


def probe(
    data: Annotated[str, typer.Option(metavar="FILE", help="Training rows; the first --batch-size of them are used.")],
    model: options.ModelArgument = None,
    named: options.ModelOption = None,
    freeze: options.Freeze = None,
    train_only: options.TrainOnly = None,
    frozen_mode: options.FrozenModeChoice = FrozenModeOption.eval,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the step, which AdamW takes.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of the step.")] = 16,
    max_length: options.MaxLength = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of new weights and dropout.")] = 42,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    problem_type: options.ProblemType = ProblemOption.auto,
    dtype: Annotated[DtypeOption, typer.Option(help="bf16 computes in mixed precision.")] = DtypeOption.fp32,
    device: options.Device = DeviceOption.auto,
    parameters: Annotated[bool, typer.Option("--parameters", help="A row per parameter instead of per unit.")] = False,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> int:
    """Take one real training step and tell what it changed; exit status 1 where that is not what the flags say."""
    from frostline.plan.plan import Plan
    from frostline.runs.first_batch import Rows, probe_checkpoint

    rows = Rows(
        data=data,
        count=batch_size,
        text_columns=options.columns(text_column),
        label_columns=options.columns(label_column),
        problem_type=problem_type.asked,
        max_length=max_length,
    )
    found = probe_checkpoint(
        options.model_of(model, named),
        rows,
        Plan.named(freeze, train_only, frozen_mode.value),
        learning_rate=lr,
        seed=seed,
        dtype=dtype.value,
        device=device.value,
        trust_remote_code=trust_remote_code,
    )
    print_answer(found, as_json=as_json, show=lambda: print_probe(found, parameters=parameters))
    return 0 if found.ok else 1


def print_probe(found: Probe, *, parameters: bool = False) -> None:
    """Print a probe: its sentence, and a row per unit, or per parameter."""
    from frostline.evidence.probe import movement

    print_text(found.verdict, "")
    if parameters:
        cells = (movement.parameter_cells(parameter) for parameter in found.parameters)
        print_table(movement.PARAMETER_COLUMNS, cells, movement.RIGHT_ALIGNED, movement.MINOR)
    else:
        cells = (movement.row_cells(row) for row in reversed(found.rows))
        print_table(movement.COLUMNS, cells, movement.RIGHT_ALIGNED, movement.MINOR)
    print_text("", *found.notes)
