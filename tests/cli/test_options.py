"""How a model is named: alike in every command that looks at one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frostline.demo import model as demo_model
from frostline.demo.model import find_demo_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.mark.parametrize("command", ["inspect", "check", "probe"])
def test_a_model_is_an_argument_or_an_option(
    frostline: Callable[..., Done], bert: Path, table: Path, command: str
) -> None:
    data = ["--data", table, "--batch-size", 2] if command == "probe" else []
    as_argument = frostline(command, bert, *data)
    assert as_argument.status == 0
    assert frostline(command, "--model", bert, *data) == as_argument


@pytest.mark.parametrize("command", ["inspect", "check", "probe", "train"])
def test_without_one_the_demos_is_taken_and_named(
    frostline: Callable[..., Done],
    bert: Path,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setattr(demo_model, "find_demo_model", lambda: bert)
    data = ["--data", table] if command in {"probe", "train"} else []
    out = ["--out", tmp_path / "out"] if command == "train" else []
    done = frostline(command, *data, *out)
    assert (done.status, done.err) == (0, f"No model is named: taken is the demo's, '{bert}'.\n")
    named = frostline(command, "--model", bert, *data, *out, *(["--overwrite"] if out else []))
    assert (named.status, named.err) == (0, "")
    if command != "train":
        assert named.out == done.out


def test_the_demos_model_is_there(frostline: Callable[..., Done]) -> None:
    assert str(find_demo_model()) in frostline("inspect").err


@pytest.mark.parametrize("command", ["inspect", "check", "probe"])
def test_two_models(refused: Callable[..., str], bert: Path, table: Path, command: str) -> None:
    data = ["--data", table] if command == "probe" else []
    said = refused(command, bert, "--model", "other", *data)
    assert f"Two models are named: '{bert}', and 'other' with --model." in said
