"""Runs of both sides in turn, each in a fresh process, so that memory, caches and thread pools are clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from benchmarks.child import Options
from benchmarks.results import Measurement, Repeat
from frostline.errors import FrostlineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.row import Row

_ROOT = Path(__file__).parents[1]
TAIL = 20  # lines of a failed run that are shown


class RunFailedError(FrostlineError):
    """A run ended with an error; the message ends with its last lines."""


def alternate(row: Row, *, repeats: int, rows: int | None, threads: int, on_run: Callable[[str], None]) -> list[Repeat]:
    """Run the sides of a row in turn: ours, theirs, ours, and so on.

    Args:
        row: What to run.
        repeats: How often each side runs.
        rows: The greatest number of training rows; None for as many as the row names.
        threads: For everything that computes.
        on_run: Called before each run with its number and side.

    Raises:
        RunFailedError: If a run fails.
    """
    found = []
    for number in range(1, repeats + 1):

        def run(side: Literal["ours", "theirs"], number: int = number) -> Measurement:
            on_run(f"{row.name} {number}/{repeats} {side}")
            return run_once(row.name, side, rows=rows, threads=threads)

        found.append(Repeat(run("ours"), run("theirs") if row.theirs else None))
    return found


def run_once(row: str, side: Literal["ours", "theirs"], *, rows: int | None, threads: int) -> Measurement:
    """One run in a fresh process with fresh folders for caches and outputs.

    Raises:
        RunFailedError: If it fails.
    """
    with TemporaryDirectory(prefix="frostline-bench-") as name:
        folder = Path(name)
        told, out, run = folder / "options.json", folder / "measurement.json", folder / "run"
        run.mkdir()
        told.write_text(json.dumps(asdict(Options(row, side, rows, threads, str(run), str(out)))))
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", "benchmarks.child", str(told)],
            env=environment(folder, threads),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-TAIL:])
            raise RunFailedError(f"The run of {row!r} ({side}) ended with status {done.returncode}:\n{tail}")
        return Measurement(**json.loads(out.read_text(encoding="utf-8")))


def environment(folder: Path, threads: int) -> dict[str, str]:
    """Variables of a run's process: this tree, so many threads, and caches of its own."""
    count = str(threads)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(_ROOT / "src"), str(_ROOT))),  # this tree, whatever is installed
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,  # the tokenizers
        "TOKENIZERS_PARALLELISM": "true",
        "XDG_CACHE_HOME": str(folder / "cache"),  # nothing is found that an earlier run computed
        "HF_HOME": str(folder / "cache" / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
