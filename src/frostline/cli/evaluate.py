"""``frostline evaluate``: how good a trained classifier is on given labels."""

from __future__ import annotations

from typing import Annotated

import typer

from frostline.cli import options
from frostline.cli.options import DeviceOption
from frostline.cli.render import metrics_line, print_json, print_text


def evaluate(
    model: options.ClassifierFolder,
    data: Annotated[str, typer.Option(metavar="FILE", help="Rows with labels.")],
    text_column: options.TextColumn = "text",
    label_column: options.LabelColumn = "label",
    limit: Annotated[int | None, typer.Option(help="Rows at most: drawn by the seed, balanced over labels.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the part that --limit takes.")] = 42,
    batch_size: options.RowsPerStep = 32,
    max_length: options.MaxLength = None,
    device: options.Device = DeviceOption.auto,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Compare a classifier's predictions with given labels."""
    from frostline.data.examples import read_examples
    from frostline.data.parts import balanced
    from frostline.runs.inference import Classifier

    examples = read_examples(
        data,
        text_columns=options.columns(text_column),
        label_columns=options.columns(label_column),
        role="eval",
    )
    classifier = Classifier(
        model,
        device=device.value,
        batch_size=batch_size,
        max_length=max_length,
        trust_remote_code=trust_remote_code,
    )
    part = balanced(examples, classifier.schema, limit, seed)
    metrics = classifier.evaluate(part)
    if as_json:
        print_json({"rows": len(part), "metrics": metrics})
    else:
        of = f" of {len(examples):,}" if len(part) < len(examples) else ""
        print_text(f"{len(part):,}{of} rows: {metrics_line(metrics)}")
