"""``frostline train``: fine-tune a text classifier with frozen parts, and prove it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frostline.cli import options
from frostline.cli.options import DeviceOption, DtypeOption, FrozenModeOption, ProblemOption, StoreOption
from frostline.cli.pages import write_page
from frostline.cli.render import metrics_line, print_inspection, print_json, print_text
from frostline.data.labels import REGRESSION

if TYPE_CHECKING:
    from frostline.runs.train_result import TrainResult, TrainStart


def train(
    data: Annotated[
        str,
        typer.Option(help="Training rows: CSV, TSV, JSONL, Parquet, or NAME[:CONFIG][:SPLIT] of the hub."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A folder, or a hub name; by default the small BERT of the extra 'demo'."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to leave; it appears when it is complete.")] = Path(
        "frostline-out"
    ),
    eval_data: Annotated[
        str | None,
        typer.Option(
            "--eval", metavar="FILE", help="Evaluation rows, likewise; or the share to hold out, such as 10%."
        ),
    ] = None,
    freeze: options.Freeze = None,
    train_only: options.TrainOnly = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="FILE|PRESET", help="What trains phase by phase: see 'frostline schedule'."),
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(metavar="SELECTORS", help="Where LoRA goes, 'layers[-4:]'; all else but the head is frozen."),
    ] = None,
    dora: Annotated[str | None, typer.Option(metavar="SELECTORS", help="Where DoRA goes, likewise.")] = None,
    peft: Annotated[
        str | None, typer.Option(metavar="FILE", help="Adapters as a file of PEFT says: adapter_config.json.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of LoRA or DoRA; by default 8.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Their scale times the rank; by default twice the rank.")] = None,
    targets: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME…]", help="Linear layers that they go into; by default those usual in PEFT."),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Leave a plain model, the adapters merged into it.")] = False,
    frozen_mode: options.FrozenModeChoice = FrozenModeOption.eval,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; by default by how many rows.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; by default by what trains.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 16,
    max_length: options.MaxLength = None,
    seed: Annotated[int, typer.Option(help="Seed of new weights, dropout, the order of rows, and what is drawn.")] = 42,
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    problem_type: options.ProblemType = ProblemOption.auto,
    dtype: Annotated[DtypeOption, typer.Option(help="bf16 and fp16 compute in mixed precision.")] = DtypeOption.fp32,
    device: options.Device = DeviceOption.auto,
    limit: Annotated[
        int | None, typer.Option(help="Rows at most: drawn by the seed, balanced over labels; of --eval likewise.")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without a better evaluation.")] = None,
    store: Annotated[
        StoreOption, typer.Option(help="Where the frozen part's activations are kept; by default where it is fastest.")
    ] = StoreOption.auto,
    store_dir: Annotated[str | None, typer.Option(help="The folder for stores on disk; else in your cache.")] = None,
    store_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The most that a store may take: 4GB. Else half of what is free.")
    ] = None,
    store_dtype: Annotated[
        DtypeOption | None, typer.Option(help="What activations are stored as; else as they are computed.")
    ] = None,
    no_padding_free: Annotated[bool, typer.Option("--no-padding-free", help="Run layers with padding.")] = False,
    no_engine: Annotated[bool, typer.Option("--no-engine", help="Take no fast path at all.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print how the engine's choice was reckoned.")] = False,
    allow_new_frozen: Annotated[
        bool, typer.Option("--allow-new-frozen", help="Freeze also what the checkpoint lacks, which stays random.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace what --out holds, once the run is complete."),
    ] = False,
    html: options.Html = None,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="Leave out of the page the texts that it got most wrong.")
    ] = False,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Fine-tune a text classifier; what is frozen stays frozen, and the run ends with a proof of it."""
    from frostline.cli.forecast import Forecast
    from frostline.cli.progress import TrainingProgress
    from frostline.runs.train import run_training
    from frostline.runs.train_settings import TrainSettings

    settings = TrainSettings(
        model=options.model_of(None, model),
        data=data,
        eval_data=eval_data,
        freeze=freeze,
        train_only=train_only,
        schedule=schedule,
        lora=lora,
        dora=dora,
        peft=peft,
        rank=rank,
        alpha=alpha,
        targets=None if targets is None else options.columns(targets),
        merge=merge,
        frozen_mode=frozen_mode.value,
        epochs=epochs,
        learning_rate=lr,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        text_columns=options.columns(text_column),
        label_columns=options.columns(label_column),
        problem_type=problem_type.asked,
        dtype=dtype.value,
        device=device.value,
        limit=limit,
        patience=patience,
        engine=not no_engine,
        store=store.value,
        store_dir=store_dir,
        store_budget=store_budget,
        store_dtype=store_dtype.value if store_dtype is not None else None,
        padding_free=not no_padding_free,
        trust_remote_code=trust_remote_code,
        allow_new_frozen=allow_new_frozen,
    )
    progress = TrainingProgress(quiet=as_json)
    try:
        result = run_training(
            settings,
            options.place(out),
            resume=resume,
            overwrite=overwrite,
            on_start=None if as_json else print_start,
            callbacks=[progress] if as_json else [progress, Forecast()],
        )
    finally:
        progress.stop()
    if html is not None:
        write_page(html, result.to_html(texts=not no_texts))
    if as_json:
        print_json(result.to_dict() | {"folder": str(result.folder), "digest": result.digest})
    else:
        print_result(result, explain=explain)
        if html is not None:
            print_text(f"Page: {html}")


def print_start(start: TrainStart) -> None:
    """Print what is settled before the first step."""
    print_inspection(start.inspection)
    adapters = (f"Adapters: {start.adapters}.",) if start.adapters else ()
    labels = f"{len(start.read.schema.names)} labels" if start.read.schema.names else "one value"
    evaluation = f"; {start.eval_rows:,} rows for evaluation" if start.eval_rows is not None else ""
    print_text(
        "",
        *adapters,
        *((f"Schedule ({start.schedule.name}):", str(start.schedule)) if start.schedule is not None else ()),
        f"Data: {start.tokens}; {start.read.schema.problem_type.replace('_', ' ')}, {labels}{evaluation}.",
        f"Training: epochs {start.length.epochs:g}, batch size {start.settings.batch_size}, "
        f"learning rate {start.rate_in_words}, seed {start.settings.seed}.",
    )
    print_text(*_parts(start))
    if start.resumed is not None:
        print_text(f"Going on from {start.resumed.name}.")


def _parts(start: TrainStart) -> Iterator[str]:
    """What was chosen, what is held out, and what is taken of the data."""
    from frostline.runs.rows import HELD_OUT_FILE

    if start.length.chosen:
        yield f"Chosen: {start.length.chosen}."
    if start.length.warning:
        yield f"Warning: {start.length.warning}"
    if start.read.held_out is not None:
        yield f"Held out: {len(start.read.held_out):,} rows, stratified, drawn by the seed; {HELD_OUT_FILE} lists them."
    if start.eval_rows is None:
        yield "Nothing is held out, so nothing will say how good the model is on new texts: --eval FILE, or --eval 10%."
    if (start.rows, start.eval_rows or 0) != start.read.available:
        rows, eval_rows = start.read.available
        evaluation = f", {start.eval_rows:,} of {eval_rows:,} for evaluation" if eval_rows else ""
        how = f"drawn by the seed{', labels balanced' * (start.read.schema.problem_type != REGRESSION)}"
        yield f"Limit: {start.rows:,} of {rows:,} rows for training{evaluation}; {how}."


def print_result(result: TrainResult, *, explain: bool = False) -> None:
    """Print what the run left."""
    kept = f" (of epoch {result.best_epoch:g}, the best)" if result.best_epoch is not None else ""
    if result.metrics:
        print_text(f"Kept model{kept}: {metrics_line(result.metrics)}")
    print_text(*baseline_lines(result))
    for step, report in result.earlier_engine:
        print_text(f"To step {step}: {report.explain() if explain else report}")
    if result.engine is not None:
        print_text(result.engine.explain() if explain else str(result.engine))
    elif explain and not result.start.settings.engine:
        print_text("Engine: off, because it is switched off.")
    print_text(f"Proof: {result.proof} ({result.proof.cost}).")
    what = "The adapters and the head are" if result.start.settings.leaves_adapters else "The model is"
    print_text(
        f"{result.steps:,} steps in {result.seconds:.1f} s, training loss {result.train_loss:.4f}.",
        f"{what} in {result.folder}; it carries plan, proof, metrics and a model card.",
        f"Digest of its files: {result.digest}.",
    )


def baseline_lines(result: TrainResult) -> Iterator[str]:
    """What the same answer for every row reaches, and what is wanting where the run did hardly better."""
    if result.baseline is not None:
        yield f"Baseline (always {result.baseline.answer}): {metrics_line(result.baseline.metrics)}"
    yield from result.shortfall.splitlines()
