from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from frostline.engine.trial import MOST_ROWS, trial_rows
from tests.engine.stubs import call_of, padded


def _rows(lengths: tuple[int, ...], **options: Any) -> Any:
    model = SimpleNamespace(config=SimpleNamespace(pad_token_id=0))
    return trial_rows(call_of(padded(lengths, **options)), model)  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [(7,), (7, 7, 7), (5, 9, 7, 3, 8, 4, 6), (200, 180, 300), (3, 3)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_there_are_few_and_short_rows_with_padding(lengths: tuple[int, ...], side: str) -> None:
    call = _rows(lengths, side=side)
    assert 2 <= call.rows.count <= MOST_ROWS
    assert call.rows.length <= 64
    assert not call.rows.full
    assert bool(call.rows.mask.any(dim=1).all())
    assert call.inputs["input_ids"].shape == call.inputs["attention_mask"].shape == call.shape
    assert torch.equal(call.inputs["attention_mask"].bool(), call.rows.mask)
    assert torch.equal(call.inputs["input_ids"] != 0, call.rows.mask)


def test_what_opens_and_ends_a_text_stays() -> None:
    batch = padded((40, 40, 40))
    call = trial_rows(call_of(batch), nn.Identity())
    for row in range(call.rows.count):
        ids = call.inputs["input_ids"][row][call.rows.mask[row]]
        assert (ids[0], ids[-1]) in [(own[0], own[-1]) for own in batch["input_ids"]]
