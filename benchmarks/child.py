"""One run of one side, in a process of its own: ``python -m benchmarks.child OPTIONS.json``.

Not timed: imports, reading the texts and the model, and a warm-up, which is the same work with a tiny model on one
text per label. Timed: all the rest, from texts to a trained model. Afterwards, not timed either: accuracy on the test
split, and the rates behind the limit.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from benchmarks.case import Case, Predict
from benchmarks.data import Split, load_data
from benchmarks.limit import measured_rate, required
from benchmarks.models import load_model, load_tokenizer, read_in
from benchmarks.results import Measurement
from benchmarks.row import Row, all_rows
from frostline.base.peak import peak_memory

if TYPE_CHECKING:
    from benchmarks.case import Contestant
    from benchmarks.task import Make, TaskContestant


@dataclass(frozen=True)
class Options:
    """What a run is told.

    Attributes:
        row: The name of the row.
        side: Who runs.
        rows: The greatest number of training rows; None for as many as the row names.
        threads: For torch.
        folder: An empty folder.
        out: The file for the `Measurement`, as JSON.
    """

    row: str
    side: Literal["ours", "theirs"]
    rows: int | None
    threads: int
    folder: str
    out: str


def measure(row: Row, options: Options) -> Measurement:
    """Run one side of a row."""
    import torch

    torch.set_num_threads(options.threads)
    contestant = row.ours if options.side == "ours" else row.theirs
    if contestant is None:
        raise ValueError(f"row {row.name} has no peer to run")
    if row.task is not None:
        return _measure_task(row, row.task, cast("TaskContestant", contestant), options)
    return _measure_texts(row, cast("Contestant", contestant), options)


def _measure_task(row: Row, make: Make, contestant: TaskContestant, options: Options) -> Measurement:
    """Run one side of a row that brings its own model and rows."""
    job, folder = row.job, Path(options.folder)
    contestant(job, make(job.batch, True), folder)()
    task = make(min(job.rows, options.rows or job.rows), False)
    read_in(task.model)
    work = contestant(job, task, folder)
    with peak_memory() as peak:
        start = time.perf_counter()
        loss = work()
        seconds = time.perf_counter() - start
    return Measurement(
        seconds=seconds,
        accuracy=None,
        peak_bytes=peak.bytes,
        rise_bytes=peak.rise,
        limit_seconds=None,
        rows=len(task.rows),
        tokens=task.tokens,
        source=task.source,
        loss=loss,
    )


def _measure_texts(row: Row, contestant: Contestant, options: Options) -> Measurement:
    """Run one side of a row that classifies texts."""
    job, data = row.job, load_data()
    if job.fill is not None:
        data = data.joined(job.fill)
    train = data.train.first(min(job.rows, options.rows or job.rows))
    case = Case(train, data.classes, Path(options.folder))
    contestant(job, replace(case, train=train.one_of_each(), tiny=True))()

    work = contestant(job, case)
    with peak_memory() as peak:
        start = time.perf_counter()
        predict = work()
        seconds = time.perf_counter() - start

    lengths = [len(ids) for ids in load_tokenizer()(list(train.texts), truncation=True)["input_ids"]]
    return Measurement(
        seconds=seconds,
        accuracy=accuracy(predict, data.test) if job.epochs else None,
        peak_bytes=peak.bytes,
        rise_bytes=peak.rise,
        limit_seconds=_limit(row, case, lengths) if options.side == "ours" else None,
        rows=len(train),
        tokens=sum(lengths),
        source=data.source,
    )


def accuracy(predict: Predict, test: Split) -> float:
    """The share of labels that are right."""
    found = predict(test.texts)
    return sum(one == other for one, other in zip(found, test.labels, strict=True)) / len(test)


def _limit(row: Row, case: Case, lengths: list[int]) -> float:
    import torch

    dtype = torch.bfloat16 if row.job.bf16 else torch.float32
    rate = measured_rate(dtype, "cuda" if row.job.cuda else "cpu")
    return required(row.job, load_model(row.job, case).config, lengths).seconds(rate)


def main() -> None:
    """Run what the options name, and write what was measured."""
    options = Options(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    row = next(row for row in all_rows() if row.name == options.row)
    Path(options.out).write_text(json.dumps(asdict(measure(row, options))), encoding="utf-8")


if __name__ == "__main__":
    main()
