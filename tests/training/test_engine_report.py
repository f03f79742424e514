"""What a run says of the engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

import frostline as fl
from frostline.engine.kernels import onednn_linear as products
from tests.training import tokens
from tests.training.beside import ROWS, both

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("heard")


def test_the_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, _ = both(tmp_path, given={"data_collator": tokens.padding()})
    (line,) = [message for message in caplog.messages if message.startswith("Engine: ")]
    paths = "replay from layer 2, padding-free, last layer for the first token only"
    if products.is_faster(torch.device("cpu"), torch.float32):
        paths += ", matrix products by oneDNN"
    assert line.startswith(f"Engine: {paths}; activations in memory (")
    assert line.endswith("): as asked for.")
    assert line == str(ours.engine_report)


def test_the_line_of_rows_that_are_kept_as_they_come(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, _ = both(tmp_path)
    (line,) = [message for message in caplog.messages if message.startswith("Engine: ")]
    first, last = (
        re.search(r"in memory \(([\d.]+) kB\): as asked for", said) for said in (line, str(ours.engine_report))
    )
    assert first is not None
    assert last is not None
    assert 0 < float(first[1]) < float(last[1])  # the rows of the first step, and those of all


def test_the_guard_is_told_of(tmp_path: Path) -> None:
    ours, _ = both(tmp_path)
    assert ours.engine_report is not None
    told = ours.engine_report.to_dict()["guard"]
    assert told["compared"] >= 1
    assert told["failures"] == []
    assert told["largest_difference_of_outputs"] <= 1e-5


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"store": "off"}, "nothing is stored: switched off"),
        ({"store": "off", "store_dtype": "bf16"}, "nothing is stored: switched off"),
        ({"frozen_mode": "train"}, "nothing is stored: frozen layers follow train(), dropout included"),
        ({"store": "memory", "store_dtype": "bf16"}, None),
    ],
)
def test_the_report_tells_of_what_is_stored_only_where_something_is(
    tmp_path: Path, changes: dict[str, Any], why: str | None
) -> None:
    args = tokens.arguments(tmp_path, freeze=tokens.LOWER, max_steps=2, **changes)
    trainer = fl.Trainer(tokens.model(), args, tokens.collate, ROWS)
    trainer.train()
    report = trainer.engine_report
    assert report is not None
    lines = report.explain().splitlines()
    (replay,) = [line for line in lines if line.startswith("replay: ")]
    if why is None:
        assert replay.startswith("replay: yes, runs from what is stored for layer 2")
        assert "changes outputs" in lines[0]
    else:
        assert replay == f"replay: no, {why}"
        assert "bfloat16" not in report.explain()


def test_the_effect_of_the_dtype_that_is_stored_is_measured_and_said(tmp_path: Path) -> None:
    model = tokens.model()
    fl.freeze(model, tokens.LOWER)
    args = tokens.arguments(tmp_path, store="memory", store_dtype="bf16", max_steps=2)
    trainer = fl.Trainer(model, args, data_collator=tokens.collate, train_dataset=ROWS)
    trainer.train()
    report = trainer.engine_report
    assert report is not None
    check = next(check for check in report.check.checks if check.path == "store dtype")
    assert check.outputs is not None
    assert 1e-5 < check.outputs < 1e-1  # it was measured, and is what bfloat16 rounds
    assert f"bfloat16, which changes outputs by up to {check.outputs:.1e}" in str(report)
