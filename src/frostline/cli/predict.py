"""``frostline predict``: labels and probabilities of texts."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.base.escaping import printable
from frostline.base.files import output_text, writes_through
from frostline.cli import options
from frostline.cli.layout import wrap
from frostline.cli.options import DeviceOption
from frostline.cli.pipe import is_piped, read_lines
from frostline.cli.render import json_text, print_json, print_text, terminal_width
from frostline.data.examples import TEXT_NAMES, Examples, read_examples
from frostline.data.labels import MULTI, REGRESSION
from frostline.errors import DataError, OutputError

if TYPE_CHECKING:
    from frostline.runs.inference import Predictions


def predict(
    model: options.ClassifierFolder,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]…", help="Texts; - reads them from a pipe.")
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="The second text of a pair; once per text, in their order."),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="A table of texts instead.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a CSV file instead of printing; with --json a JSON file.")
    ] = None,
    text_column: options.TextColumn = "text",
    limit: Annotated[int | None, typer.Option(help="Rows at most, the first ones.")] = None,
    batch_size: options.RowsPerStep = 32,
    max_length: options.MaxLength = None,
    device: options.Device = DeviceOption.auto,
    as_json: options.Json = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Predict the labels of texts, with probabilities."""
    from frostline.runs.inference import Classifier, examples_of

    piped = data is None and (texts == ["-"] or (not texts and is_piped()))
    if not piped and bool(texts) == (data is not None):
        raise DataError("Give texts to predict, or a table of them with --data; one of the two.")
    if pair and (piped or data is not None):
        raise DataError("--pair belongs to texts given one by one.\nFor a table name both columns: --text-column A,B.")
    if out is not None and data is not None and _are_one_file(Path(data), options.place(out)):
        raise OutputError(f"'{out}' is the table that is read.\nName another file with --out.")
    columns = options.columns(text_column)
    if piped:
        examples = examples_of(read_lines(limit))
    elif data is not None:
        examples = read_examples(data, text_columns=columns, label_columns=None, limit=limit, role="predict")
    else:
        examples = examples_of(texts or [], pair or None)
    classifier = Classifier(
        model,
        device=device.value,
        batch_size=batch_size,
        max_length=max_length,
        trust_remote_code=trust_remote_code,
    )
    predictions = classifier.predict(examples)
    rows = _rows(examples, predictions)
    if out is not None:
        _write(rows, options.place(out), as_json=as_json)
    elif as_json:
        print_json(rows)
    else:
        print_text(*_lines(examples, predictions))


def _are_one_file(table: Path, out: Path) -> bool:
    try:
        return table.is_file() and out.samefile(table)
    except OSError:
        return False


def _rows(examples: Examples, predictions: Predictions) -> list[dict[str, Any]]:
    """Texts beside their predictions, the text columns under the names that they had."""
    results = predictions.rows()
    taken = [name for name in examples.text_columns if name in results[0]]
    if taken:
        raise DataError(f"The text column {taken[0]!r} has the name of a result.\nRename it in the table.")
    own = {name: examples.dataset[f"text{'_pair' * place}"] for place, name in enumerate(examples.text_columns)}
    return [{name: values[index] for name, values in own.items()} | row for index, row in enumerate(results)]


def _lines(examples: Examples, predictions: Predictions) -> Iterator[str]:
    """Per row the answer and its texts, in a pipe in one line, on a terminal in lines that end with a word."""
    width = terminal_width()
    texts = (examples.dataset[name] for name in TEXT_NAMES[: len(examples.text_columns)])
    for label, shares, *own in zip(predictions.labels, predictions.probabilities, *texts, strict=True):
        answer = [printable(label)]
        if predictions.schema.problem_type != REGRESSION:
            answer.append(f"{shares.max():.4f}")
        if predictions.schema.problem_type == MULTI and not label:  # say which came nearest
            answer = ["(none)", f"{printable(predictions.names[shares.argmax()])} {shares.max():.4f}"]
        line = "  ".join([*answer, *(" ".join(text.split()) for text in own)])
        yield from [line] if width is None else wrap(line, width, hang="    ")


def _write(rows: list[dict[str, Any]], file: Path, *, as_json: bool) -> None:
    with output_text(file) as stream:
        if as_json:
            stream.write(f"{json_text(rows)}\n")
        else:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if not as_json and not writes_through(file):  # the line would be a part of what is written to standard output
        print_text(f"{len(rows):,} predictions are in {file}.")
