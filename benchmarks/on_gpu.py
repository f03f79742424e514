"""The command behind ``make gpu``: the tests and rows that need a CUDA device, into one file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results import FOLDER, GPU_FILE, machine, result_of
from benchmarks.row import rows_named
from benchmarks.timing import alternate
from benchmarks.wording import line
from frostline.base.files import atomic_file
from frostline.base.json import write_json
from frostline.errors import FrostlineError

if TYPE_CHECKING:
    from benchmarks.results import Repeat
    from benchmarks.row import Row

_ROOT = Path(__file__).parents[1]
_LONGEST = 8 * 60  # seconds, all together
_LONGEST_TESTS = 3 * 60
_REPEATS = 3
_THREADS = 2
_TAIL = 20  # lines of the tests that are kept


def main(folder: Path = FOLDER) -> int:
    """Run the tests, and the rows as far as time is left; write what came of them.

    Args:
        folder: Where the file goes.

    Returns:
        0, also where there is no CUDA device; 1 if a test or a row failed.
    """
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # several would be a DataParallel
    import torch

    if not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was run.")
        return 0
    began = time.monotonic()
    found: dict[str, Any] = {"machine": machine(_THREADS, cuda=True), "tests": _tests(), "rows": {}, "failed": {}}
    for row in rows_named("gpu"):
        try:
            found["rows"][row.name] = _row(row, began)
        except FrostlineError as error:
            found["failed"][row.name] = str(error)
            print(f"{row.name:<13} {error}", file=sys.stderr)
    folder.mkdir(exist_ok=True)
    with atomic_file(folder / GPU_FILE) as draft:
        write_json(draft, found)
    print(f"Written: {folder / GPU_FILE}, in {time.monotonic() - began:.0f} s.")
    return int(found["tests"]["status"] != 0 or bool(found["failed"]))


def _tests() -> dict[str, Any]:
    """Run the tests that are marked for it."""
    words = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu", "tests/gpu"]
    began = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603 - our own tests
            words, cwd=_ROOT, capture_output=True, text=True, errors="replace", timeout=_LONGEST_TESTS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": 124, "seconds": _LONGEST_TESTS, "tail": ["ran out of time"]}
    tail = done.stdout.splitlines()[-_TAIL:]
    print(*tail, sep="\n", flush=True)
    return {"status": done.returncode, "seconds": round(time.monotonic() - began, 1), "tail": tail}


def _row(row: Row, began: float) -> dict[str, Any]:
    """Measure a row, as often as there is time for, once at least."""
    repeats: list[Repeat] = []
    longest = 0.0
    for number in range(1, _REPEATS + 1):
        at = time.monotonic()
        if repeats and at + longest > began + _LONGEST:
            break

        def tell(run: str, number: int = number) -> None:
            print(f"... {run}, repeat {number}", file=sys.stderr, flush=True)

        repeats += alternate(row, repeats=1, rows=None, threads=_THREADS, on_run=tell)
        longest = max(longest, time.monotonic() - at)
    result = result_of(row, repeats, _THREADS)
    print(line(result), flush=True)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
