"""``frostline sweep``: accuracy against cost for each depth of the frost line, on your own data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli import options
from frostline.cli.options import DeviceOption, DtypeOption, ProblemOption
from frostline.cli.pages import write_page
from frostline.cli.render import print_answer, print_table, print_text
from frostline.errors import SettingsError

if TYPE_CHECKING:
    from frostline.runs.sweep.result import SweepResult


def sweep(
    data: Annotated[str, typer.Option(help="Training rows, as 'train' takes them.")],
    eval_data: Annotated[
        str, typer.Option("--eval", metavar="FILE", help="Evaluation rows, likewise; or the share to hold out.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A folder, or a hub name; by default the small BERT of the extra 'demo'."),
    ] = None,
    depths: Annotated[
        str, typer.Option(metavar="all|N[,N…]", help="How many of the lowest layers are frozen, beside nothing at all.")
    ] = "all",
    bands: Annotated[
        bool, typer.Option("--bands", help="Also train the lower, middle and upper layers alone, with the head.")
    ] = False,
    presets: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME…]", help="Also train by schedules: see 'frostline schedule'."),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="RATE[,RATE…]",
            help="Learning rates to choose from; by default the usual one, its third, threefold.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How often each depth is trained.")] = 3,
    epochs: Annotated[float, typer.Option(help="Passes over the data.")] = 3,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="How long it should take: 90s, 30m, 1.5h.")] = None,
    pick: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="Train and save 'best', or 'fastest-within 1pt', of them."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to leave; it appears when it is complete.")] = Path(
        "frostline-sweep"
    ),
    batch_size: options.RowsPerStep = 16,
    max_length: options.MaxLength = None,
    seed: Annotated[int, typer.Option(help="The first seed, of new weights and the order of rows.")] = 42,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    problem_type: options.ProblemType = ProblemOption.auto,
    dtype: Annotated[DtypeOption, typer.Option(help="bf16 and fp16 compute in mixed precision.")] = DtypeOption.fp32,
    device: options.Device = DeviceOption.auto,
    limit: Annotated[
        int | None, typer.Option(help="Rows at most: drawn by the seed, balanced over labels; of --eval likewise.")
    ] = None,
    report_to: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME…]", help="Trackers that get a run per row and seed.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted sweep.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what --out holds, once the sweep is complete.")
    ] = False,
    html: options.Html = None,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Train each depth of the frost line on your own data, and tell what freezing costs and saves."""
    from frostline.runs.sweep.settings import SweepSettings, seconds_of
    from frostline.runs.sweep.sweep import run_sweep
    from frostline.runs.train_settings import TrainSettings

    settings = SweepSettings(
        run=TrainSettings(
            model=options.model_of(None, model),
            data=data,
            eval_data=eval_data,
            epochs=epochs,
            batch_size=batch_size,
            max_length=max_length,
            seed=seed,
            text_columns=options.columns(text_column),
            label_columns=options.columns(label_column),
            problem_type=problem_type.asked,
            dtype=dtype.value,
            device=device.value,
            limit=limit,
            trust_remote_code=trust_remote_code,
        ),
        depths=None if depths == "all" else tuple(int(number) for number in _numbers("--depths", depths, int)),
        bands=bands,
        presets=options.columns(presets or ""),
        rates=None if lr is None else _numbers("--lr", lr, float),
        seeds=seeds,
        budget=None if budget is None else seconds_of(budget),
        pick=pick,
        report_to=options.columns(report_to or ""),
    )
    with _bar(quiet=as_json) as progress:
        result = run_sweep(settings, options.place(out), resume=resume, overwrite=overwrite, on_progress=progress)
    if html is not None:
        write_page(html, result.to_html())
    print_answer(result, as_json=as_json, show=lambda: print_sweep(result))
    if html is not None and not as_json:
        print_text(f"Page: {html}")


def _numbers(option: str, text: str, kind: Callable[[str], float]) -> tuple[float, ...]:
    try:
        return tuple(kind(number) for number in options.columns(text))
    except ValueError:
        raise SettingsError(f"{option} is {text!r}.\nWrite numbers, with commas between them.") from None


def print_sweep(result: SweepResult) -> None:
    """Print a sweep: a row per depth, the verdict, and where the picture is."""
    from frostline.runs.sweep.table import COLUMNS, MINOR, RIGHT_ALIGNED, cells

    print_table(COLUMNS, map(cells, result.rows), RIGHT_ALIGNED, MINOR)
    print_text("", *result.lines())
    print_text(f"Table, picture and all runs are in {result.folder}.")


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[str, float, float], None]]:
    """Show how far a sweep is, and the time left, on a terminal; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from frostline.base.escaping import printable
    from frostline.runs.sweep.sweep import silent

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
    )
    # Runs take minutes: the time left follows from all of them, not from the last half minute.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=86_400) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=printable(what), completed=done, total=total)
