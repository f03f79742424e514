from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from frostline.cli.forecast import Forecast


def told(steps: int, seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said in a run of so many steps of so many seconds, the first of which takes 20 more."""
    now = [100.0]
    monkeypatch.setattr("frostline.cli.forecast.time.perf_counter", lambda: now[0])
    callback, nothing = Forecast(), cast_any(None)
    state = cast_any(SimpleNamespace(max_steps=steps, global_step=0))
    callback.on_train_begin(nothing, state, nothing)
    now[0] += 20
    for step in range(1, min(steps, 12) + 1):
        now[0] += seconds
        state.global_step = step
        callback.on_step_end(nothing, state, nothing)
    return capsys.readouterr().out


def cast_any(value: Any) -> Any:
    return value


def test_the_first_steps_tell_what_is_ahead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(100, 0.5, monkeypatch, capsys) == (
        "Estimate: 70 s of training in all, without evaluations (500 ms a step, measured over 7; 24 s so far).\n"
    )


@pytest.mark.parametrize(("steps", "seconds"), [(100, 0.05), (6, 60.0)])
def test_a_run_that_is_soon_over_needs_none(
    steps: int, seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(steps, seconds, monkeypatch, capsys) == ""
