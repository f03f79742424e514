"""A sweep, read back from the folder that it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frostline.base.json import is_number, read_json
from frostline.errors import ModelError
from frostline.runs.output_folder import SWEEP_FILE
from frostline.runs.sweep.interval import Interval
from frostline.runs.sweep.result import SweepResult
from frostline.runs.sweep.row import SweepRow
from frostline.runs.train_settings import known_settings


def read_sweep(folder: Path) -> SweepResult:
    """Read what a sweep left; intervals and differences are reckoned anew from the figures of each seed.

    Raises:
        ModelError: If its file cannot be read, or is not as a sweep writes it.
    """
    file = folder / SWEEP_FILE
    try:
        return _result(read_json(file), folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"'{file}' cannot be read ({error}).\nIt is not as the sweep wrote it.") from None


def _result(values: Any, folder: Path) -> SweepResult:
    full = _interval(values["rows"][0]["accuracy"])
    return SweepResult(
        rows=tuple(_row(row, full, is_first=place == 0) for place, row in enumerate(values["rows"])),
        verdict=str(values["verdict"]),
        model=str(values["model"]),
        train_rows=int(_positive(values["train_rows"])),
        eval_rows=int(_positive(values["eval_rows"])),
        epochs=_positive(values["epochs"]),
        seconds=_number(values["seconds"]),
        shared_seconds=_number(values["shared_seconds"]),
        notes=tuple(map(str, values["notes"])),
        folder=folder,
        settings=known_settings(values.get("settings")),
    )


def _row(values: Any, full: Interval, *, is_first: bool) -> SweepRow:
    accuracy, rate, peak = _interval(values["accuracy"]), values["learning_rate"], values["peak_bytes"]
    return SweepRow(
        freeze=str(values["freeze"]),
        name=str(values["name"]),
        accuracy=accuracy,
        macro_f1=_interval(values["macro_f1"]),
        difference=None if is_first else accuracy.minus(full),
        seconds=_positive(values["seconds"]),
        peak_bytes=None if peak is None else int(_number(peak)),
        trainable=_number(values["trainable"]),
        learning_rate=None if rate is None else _number(rate),
        preset=str(values["preset"]),
    )


def _interval(values: Any) -> Interval:
    given = [_number(value) for value in values["values"]]
    if not given:
        raise ValueError("a row has no figures")
    return Interval.of(given)


def _number(value: Any) -> float:
    if not is_number(value):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    found: float = value
    return found


def _positive(value: Any) -> float:
    found = _number(value)
    if found <= 0:
        raise ValueError(f"{value!r} is not above 0")
    return found
