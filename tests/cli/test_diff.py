"""``frostline diff`` as a user meets it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
import torch

from tests.checkpoints.folders import save_classifier, tensors_of, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "base")


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    tensors = tensors_of(base)
    return write(tmp_path / "tuned", tensors | {"classifier.bias": torch.full((2,), 0.25)}, base)


def test_the_units(frostline: Callable[..., Done], base: Path, tuned: Path) -> None:
    done = frostline("diff", base, tuned)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] == "41 tensors: 40 identical, 1 changed."
    rows = [line.split() for line in done.out.splitlines()]
    assert ["pooler", "identical", "2", "-", "-", "-"] in rows
    head = next(row for row in rows if row and row[0] == "head")
    assert head == ["head", "partly", "changed", "2", "0.25", "-", "-", "1", "identical,", "1", "changed"]


def test_the_tensors(frostline: Callable[..., Done], base: Path, tuned: Path) -> None:
    done = frostline("diff", base, tuned, "--tensors")
    assert "classifier.bias" in done.out
    assert len([line for line in done.out.splitlines() if " identical " in line]) == 40


def test_expectations_that_hold(frostline: Callable[..., Done], base: Path, tuned: Path) -> None:
    done = frostline("diff", base, tuned, "--expect-frozen", "backbone", "--expect-moved", "classifier.bias")
    assert done.status == 0
    assert done.out.splitlines()[-1] == "Everything is as expected."


@pytest.mark.parametrize("as_json", [False, True])
def test_a_violation(frostline: Callable[..., Done], base: Path, tuned: Path, as_json: bool) -> None:
    options = ["--json"] if as_json else []
    done = frostline("diff", base, tuned, "--expect-frozen", "head", *options)
    assert (done.status, done.err) == (1, "")
    if as_json:
        values = json.loads(done.out)
        assert not values["ok"]
        assert values["violations"] == [{"name": "classifier.bias", "expected": "frozen", "found": "changed"}]
    else:
        assert done.out.splitlines()[-1] == "Violation: classifier.bias was expected frozen: changed."


def test_numbers_that_json_does_not_have(frostline: Callable[..., Done], base: Path, tmp_path: Path) -> None:
    tensors = tensors_of(base) | {"classifier.bias": torch.full((2,), math.nan)}
    done = frostline("diff", base, write(tmp_path / "nan", tensors, base), "--json")
    assert "NaN" not in done.out
    (row,) = (row for row in json.loads(done.out)["tensors"] if row["verdict"] == "changed")
    assert row["max_abs"] is None


def test_what_cannot_be_compared(refused: Callable[..., str], base: Path, tuned: Path, tmp_path: Path) -> None:
    assert "no folder" in refused("diff", base, tmp_path / "nowhere")
    assert "matches nothing" in refused("diff", base, tuned, "--expect-moved", "layers[9]")
    (tuned / "model.safetensors").write_bytes(b"short")
    assert "are damaged" in refused("diff", base, tuned)
    (tuned / "model.safetensors").unlink()
    assert "no weights" in refused("diff", base, tuned)
