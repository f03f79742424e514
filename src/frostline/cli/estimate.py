"""``frostline estimate``: what a plan will cost, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from frostline.cli import options
from frostline.cli.options import DtypeOption, FrozenModeOption, StoreOption
from frostline.cli.pages import write_page
from frostline.cli.render import print_answer, print_table, print_text

if TYPE_CHECKING:
    from frostline.runs.estimate_result import Estimate


def estimate(
    model: options.ModelArgument = None,
    named: options.ModelOption = None,
    freeze: options.Freeze = None,
    train_only: options.TrainOnly = None,
    frozen_mode: options.FrozenModeChoice = FrozenModeOption.eval,
    data: Annotated[str | None, typer.Option(help="Training rows, as for 'train'; their lengths are counted.")] = None,
    rows: Annotated[int | None, typer.Option(metavar="N", help="How many rows, where there are no data yet.")] = None,
    mean_tokens: Annotated[float | None, typer.Option(metavar="T", help="Tokens of a row on average, then.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; by default as 'train' chooses.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 16,
    max_length: options.MaxLength = None,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    dtype: Annotated[DtypeOption, typer.Option(help="fp32, or bf16 for mixed precision.")] = DtypeOption.fp32,
    device: Annotated[
        str, typer.Option(metavar="cpu|NAME", help="This machine's processor, or a GPU by its name: a100-80gb.")
    ] = "cpu",
    flops: Annotated[float | None, typer.Option(help="Peak FLOP/s of another machine, 312e12.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Bytes/s of its memory, 2e12.")] = None,
    store: Annotated[
        StoreOption, typer.Option(help="Where the frozen part's activations are kept; by default where it is fastest.")
    ] = StoreOption.auto,
    num_labels: Annotated[int | None, typer.Option(min=1, help="Width of the head.")] = None,
    html: options.Html = None,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Reckon time, memory and disk of a plan before it is trained; of the model only its configuration is read."""
    from frostline.runs.estimating import estimate as reckon

    found = reckon(
        options.model_of(model, named),
        freeze=freeze,
        train_only=train_only,
        frozen_mode=frozen_mode.value,
        data=data,
        rows=rows,
        tokens=mean_tokens,
        epochs=epochs,
        batch_size=batch_size,
        max_length=max_length,
        dtype=cast("Literal['fp32', 'bf16']", dtype.value),
        device=device,
        flops=flops,
        bandwidth=bandwidth,
        store=store.value,
        num_labels=num_labels,
        text_columns=options.columns(text_column),
        label_columns=options.columns(label_column),
        trust_remote_code=trust_remote_code,
    )
    if html is not None:
        write_page(html, found.to_html())
    print_answer(found, as_json=as_json, show=lambda: _show(found))
    if html is not None and not as_json:
        print_text("", f"Page: {html}")


def _show(found: Estimate) -> None:
    from frostline.runs.estimate_result import COLUMNS, head_lines, table_rows, tail_lines

    print_text(*head_lines(found), "")
    print_table(COLUMNS, table_rows(found), COLUMNS[1:])
    print_text("", *tail_lines(found))
