"""The command behind ``make bench``: ``python -m benchmarks [ROW ...] [--repeats N] [--rows N] [--threads N]``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from benchmarks.results import result_of, save
from benchmarks.row import NAMES, Row, rows_named
from benchmarks.timing import alternate
from benchmarks.wording import line
from frostline.errors import FrostlineError

if TYPE_CHECKING:
    from benchmarks.job import Job
    from benchmarks.results import Repeat

    # What decides on a run: the job, the task, and both sides.
    Runs = tuple[Job, object, object, object]

REPEATS = 3
ESTIMATE = "estimate"  # a table of its own
THREADS = 2


def main(arguments: list[str] | None = None) -> int:
    """Measure one row or all, print a line for each, and keep what is no trial.

    Returns:
        0; 1 if a run failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "row", nargs="*", help=f"the rows to measure: {', '.join(NAMES)}; all unless told; or {ESTIMATE}, alone"
    )
    parser.add_argument("--repeats", type=_count, default=REPEATS, help="runs of each side (default: %(default)s)")
    parser.add_argument("--rows", type=_count, help="train on so many rows at most")
    parser.add_argument("--threads", type=_count, default=THREADS, help="threads (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.row == [ESTIMATE]:
        from benchmarks.estimate import table

        return table(options.threads)
    unknown = [name for name in options.row if name not in NAMES]
    if unknown:
        parser.error(f"no row is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    trial = options.rows is not None or options.repeats < REPEATS or options.threads != THREADS
    if trial:
        print("A trial, by its options: nothing is kept.")
    status = 0
    done: dict[Runs, list[Repeat]] = {}
    for name in options.row or NAMES:
        for row in rows_named(name):
            try:
                _measure(row, options, done, keep=not trial)
            except FrostlineError as error:
                print(f"{row.name:<13} {error}", file=sys.stderr)
                status = 1
    return status


def _measure(row: Row, options: argparse.Namespace, done: dict[Runs, list[Repeat]], *, keep: bool) -> None:
    """Measure a row; one that runs the same as another, for another figure, takes its runs."""
    reason = row.unavailable()
    if reason:
        print(f"{row.name:<13} not available: {reason}")
        return

    def tell(run: str) -> None:
        print(f"... {run}", file=sys.stderr, flush=True)

    runs = (row.job, row.task, row.ours, row.theirs)
    if runs not in done:
        done[runs] = alternate(row, repeats=options.repeats, rows=options.rows, threads=options.threads, on_run=tell)
    repeats = done[runs]
    result = result_of(row, repeats, options.threads)
    print(line(result), flush=True)
    if keep:
        save(result)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
