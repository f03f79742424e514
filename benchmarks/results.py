"""What was measured, and the files it is kept in."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from frostline.base.files import atomic_file
from frostline.base.json import write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.row import Figure, Row

FOLDER = Path(__file__).parent / "results"
GPU_FILE = "gpu.json"  # of `make gpu`: the tests, and the rows that need a CUDA device
_PACKAGES = ("frostline", "torch", "transformers", "tokenizers", "sentence-transformers", "scikit-learn")
_INSTRUCTIONS = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Measurement:
    """One run of one side.

    Attributes:
        seconds: The timed region.
        accuracy: On the test split; None where nothing is learned.
        peak_bytes: The highest resident memory in the timed region; None where the system does not say.
        rise_bytes: The same above what was resident as it began.
        limit_seconds: The limit by FLOPs on this machine, measured right after; None for the peer.
        rows: The texts that were trained on.
        tokens: Their tokens, without padding.
        source: What the texts are, in words.
        loss: The mean training loss of the last steps; None where accuracy is told.
    """

    seconds: float
    accuracy: float | None
    peak_bytes: int | None
    rise_bytes: int | None
    limit_seconds: float | None
    rows: int
    tokens: int
    source: str
    loss: float | None = None


@dataclass(frozen=True)
class Repeat:
    """One run of each side, one after the other; `theirs` is None where the peer is the limit."""

    ours: Measurement
    theirs: Measurement | None

    def ratio(self, figure: Figure) -> float:
        """What the row compares.

        Raises:
            ValueError: If the system does not tell what it needs.
        """
        if figure == "share":
            return self.of_limit**-1
        if self.theirs is None:
            raise ValueError("without a peer there is only the share of the limit")
        if figure == "speed":
            return self.theirs.seconds / self.ours.seconds
        if not self.ours.rise_bytes or not self.theirs.rise_bytes:
            raise ValueError("this system does not tell the peak memory of a process")
        return self.ours.rise_bytes / self.theirs.rise_bytes

    @property
    def of_limit(self) -> float:
        """How many times the limit's seconds were needed."""
        if not self.ours.limit_seconds:
            raise ValueError("the limit was not measured")
        return self.ours.seconds / self.ours.limit_seconds


@dataclass(frozen=True)
class Spread:
    """The median of some figures, the least and the greatest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """Of one figure or more."""
        found = sorted(figures)
        return cls(median(found), found[0], found[-1])


def machine(threads: int, *, cuda: bool) -> dict[str, Any]:
    """What the figures depend on; nothing that names this one machine or its user."""
    import torch

    known = torch.cpu.get_capabilities()
    return {
        "cpu": known.get("cpu_name", "unknown"),
        "cores": known.get("num_physical_cores", "unknown"),
        "threads": threads,
        "instructions": [name for name in _INSTRUCTIONS if known.get(name)],
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def result_of(row: Row, repeats: Sequence[Repeat], threads: int) -> dict[str, Any]:
    """A row's figures, ready for JSON."""
    ratio = Spread.of(repeat.ratio(row.figure) for repeat in repeats)
    return {
        "row": row.name,
        "work": row.work,
        "peer": row.peer,
        "figure": row.figure,
        "source": repeats[0].ours.source,
        "rows": repeats[0].ours.rows,
        "tokens": repeats[0].ours.tokens,
        "ratio": asdict(ratio),
        "target": str(row.target) if row.target else None,
        "met": row.target.met(ratio.median) if row.target else None,
        "of_limit": asdict(Spread.of(repeat.of_limit for repeat in repeats)) if row.task is None else None,
        "ours": _side([repeat.ours for repeat in repeats]),
        "theirs": _side([repeat.theirs for repeat in repeats if repeat.theirs is not None]),
        "repeats": [asdict(repeat) for repeat in repeats],
        "machine": machine(threads, cuda=row.job.cuda),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """The versions of what is installed of the libraries that a row may need."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _side(runs: Sequence[Measurement]) -> dict[str, float | None] | None:
    """The medians of one side; None if it did not run."""
    if not runs:
        return None
    return {
        name: _median(getattr(run, name) for run in runs)
        for name in ("seconds", "accuracy", "peak_bytes", "rise_bytes", "loss")
    }


def _median(figures: Iterable[float | None]) -> float | None:
    found = [figure for figure in figures if figure is not None]
    return median(found) if found else None


def save(result: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Writes a result to ``results/ROW.json``, and returns the file."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{result['row']}.json"
    with atomic_file(file) as draft:
        write_json(draft, result)
    return file


def load(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The kept result of a row, by `make bench` or `make gpu`; None if it was not measured."""
    file, on_gpu = folder / f"{name}.json", folder / GPU_FILE
    result: dict[str, Any] | None = None
    if file.is_file():
        result = json.loads(file.read_text(encoding="utf-8"))
    elif on_gpu.is_file():
        result = json.loads(on_gpu.read_text(encoding="utf-8"))["rows"].get(name)
    return result
