"""The rows of a run: what it trains on, what it is judged by, and what it holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from frostline.base.json import write_json
from frostline.data.examples import Examples, read_examples
from frostline.data.labels import LabelSchema
from frostline.data.parts import balanced, held_out
from frostline.runs.train_settings import TrainSettings

HELD_OUT_FILE = "held-out.json"


@dataclass(frozen=True, slots=True)
class RunRows:
    """The rows of a run.

    Attributes:
        train: What it trains on.
        test: What it is judged by; None for nothing.
        schema: What the labels of all training rows are, those beyond the limit included.
        available: Training and evaluation rows before the limit was applied.
        held_out: Numbers of the rows of the training data (from 1) that are held out for evaluation; None where
            evaluation has rows of its own, or none.
    """

    train: Examples
    test: Examples | None
    schema: LabelSchema
    available: tuple[int, int]
    held_out: tuple[int, ...] | None


def read_rows(settings: TrainSettings) -> RunRows:
    """Read the rows of a run: hold out what is asked for, and apply the limit to what is left of each.

    Raises:
        DataError: If the data cannot be used.
    """
    read = partial(read_examples, text_columns=settings.text_columns, label_columns=settings.label_columns)
    train = read(settings.data, role="train")
    schema = LabelSchema.infer(train, settings.problem_type)
    test, numbers = None, None
    if settings.eval_share is not None:
        out = held_out(train, schema, settings.eval_share, settings.seed)
        train, test = train.take(np.setdiff1d(np.arange(len(train)), out)), train.take(out)
        numbers = tuple(int(row) + 1 for row in out)
    elif settings.eval_data is not None:
        test = read(settings.eval_data, role="eval")
    return RunRows(
        train=balanced(train, schema, settings.limit, settings.seed),
        test=None if test is None else balanced(test, schema, settings.limit, settings.seed),
        schema=schema,
        available=(len(train), 0 if test is None else len(test)),
        held_out=numbers,
    )


def write_held_out(settings: TrainSettings, rows: Sequence[int], folder: Path) -> None:
    """List the rows that were held out, by their numbers in the training data."""
    told = {"data": settings.data, "share": settings.eval_data, "seed": settings.seed, "rows_from_1": list(rows)}
    write_json(folder / HELD_OUT_FILE, told, indent=None)
