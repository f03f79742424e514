from __future__ import annotations

import json
from typing import Any

import pytest

from frostline.errors import SettingsError
from frostline.runs.sweep.picking import picked_row
from frostline.runs.sweep.result import SweepResult
from frostline.runs.sweep.settings import SweepSettings, seconds_of
from frostline.runs.sweep.verdict import verdict
from frostline.runs.train_settings import TrainSettings
from tests.runs.sweep.rows import rows

ROWS = rows(nothing=([80, 81, 80.5], 29), low=([80.1, 80.9, 80.4], 20), high=([79.6, 80.5, 80.0], 30),
            middle=([79.5, 80.4, 80.1], 10), head=([73, 74.1, 73.2], 3))  # fmt: skip
RESULT = SweepResult(ROWS, verdict(ROWS), "somewhere", 800, 500, 3.0, 300.0, 12.0)


def test_the_front_is_what_no_other_beats() -> None:
    assert [row.name for row in RESULT.pareto] == ["head", "middle", "low", "nothing"]


def test_plain_values_are_those_promised() -> None:
    values = json.loads(json.dumps(RESULT.to_dict()))
    first = values["rows"][0]
    names = {"freeze", "accuracy", "macro_f1", "seconds", "peak_bytes", "trainable", "learning_rate"}
    assert names <= first.keys()
    assert first["accuracy"].keys() == {"mean", "low", "high", "values"}
    assert first["freeze"] == ""
    assert values["pareto"] == ["head", "middle", "low", ""]
    assert values["verdict"] == RESULT.verdict


def test_printed_it_is_a_table_and_the_verdict() -> None:
    lines = str(RESULT).splitlines()
    assert lines[0].split() == [
        "frozen",
        "accuracy",
        "against",
        "all",
        "macro",
        "F1",
        "time",
        "memory",
        "trains",
        "rate",
    ]
    assert lines[4].split("  ")[0] == "middle"
    assert "-0.5 ± 0.2" in lines[4]
    assert RESULT.verdict in lines


def test_as_a_table_of_pandas() -> None:
    frame = RESULT.to_pandas()
    assert list(frame["name"]) == ["nothing", "low", "high", "middle", "head"]
    assert frame["accuracy_mean"][4] == pytest.approx(0.7343, abs=1e-4)
    assert frame["accuracy_low"][4] < frame["accuracy_mean"][4] < frame["accuracy_high"][4]


def test_the_picture_names_every_row() -> None:
    pytest.importorskip("matplotlib")
    axes = RESULT.plot().axes[0]
    *numbers, names = (text.get_text() for text in axes.texts)
    assert sorted(numbers) == ["1", "2", "3", "4", "5"]
    assert names.splitlines() == [f"{number}  {row.name}" for number, row in enumerate(ROWS, 1)]
    front: Any = axes.lines[-1]
    assert [round(float(seconds)) for seconds in front.get_xdata()] == [3, 10, 20, 29]


@pytest.mark.parametrize(("within", "name"), [(None, "nothing"), (1.0, "middle"), (0.3, "low"), (10.0, "head")])
def test_which_is_picked(within: float | None, name: str) -> None:
    assert picked_row(ROWS, within).name == name


def test_lengths_of_time() -> None:
    assert [seconds_of(text) for text in ("90s", "30m", " 1.5 h")] == [90, 1800, 5400]
    for wrong in ("", "30", "m", "0s", "1d"):
        with pytest.raises(SettingsError, match="no length of time"):
            seconds_of(wrong)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 0}, "--seeds is 0"),
        ({"rates": ()}, "--lr names nothing"),
        ({"rates": (0.0,)}, "--lr is 0.0"),
        ({"pick": "fastest"}, "--pick is 'fastest'"),
        ({"run": TrainSettings(model="m", data="d")}, "needs evaluation data"),
        ({"run": TrainSettings(model="m", data="d", eval_data="e", freeze="backbone")}, "both are for it to choose"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object], said: str) -> None:
    given = {"run": TrainSettings(model="m", data="d", eval_data="e")} | changes
    with pytest.raises(SettingsError, match=said):
        SweepSettings(**given)  # type: ignore[arg-type]
