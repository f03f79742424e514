from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.job import Job
from benchmarks.limit import Required, measured_rate, required
from tests.models import tiny

CONFIG = SimpleNamespace(hidden_size=16, intermediate_size=32, num_hidden_layers=4)
TOKENS, ROWS = 7, 3
LENGTHS = [TOKENS] * ROWS
MAP = 2.0 * 16 * 16  # FLOPs of a square linear map on one position
WIDE = 2.0 * 2 * 16 * 32  # of both maps of the feed-forward
LAYER = 4 * MAP + WIDE
POOLED_LAYER = ROWS * (2 * TOKENS * MAP + 2 * MAP + WIDE)  # keys and values for all, the rest for one
EVERY = TOKENS * ROWS


def flops(found: Required) -> float:
    return sum(product.flops for product in found.products)


def test_a_prefix_alone_is_what_torch_counts() -> None:
    """Against torch's own count of a forward of the frozen layers; their linear maps and attention."""
    model: Any = tiny("bert", num_hidden_layers=4, attn_implementation="eager")
    frozen = torch.nn.ModuleList(list(model.bert.encoder.layer)[:2])
    frozen.eval()
    hidden = torch.zeros(ROWS, TOKENS, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for layer in frozen:
            layer(hidden)
    found = required(Job(top=2, epochs=0), CONFIG, LENGTHS)
    assert flops(found) + found.attention == counter.get_total_flops()


@pytest.mark.parametrize(
    ("top", "epochs", "expected"),
    [
        # Frozen layers once, the last of them for the pooled position; of the pooler, no input's gradient.
        (0, 5, 3 * EVERY * LAYER + POOLED_LAYER + 5 * 2 * ROWS * MAP),
        # Of the lowest layer that trains, queries, keys and values need no gradient of their input.
        (2, 1, 2 * EVERY * LAYER + 3 * EVERY * LAYER - 3 * EVERY * MAP + 3 * POOLED_LAYER + 3 * ROWS * MAP),
        (None, 2, 2 * 3 * (3 * EVERY * LAYER + POOLED_LAYER + ROWS * MAP)),
    ],
)
def test_a_suffix_counts_three_times_per_epoch(top: int | None, epochs: int, expected: float) -> None:
    assert flops(required(Job(top=top, epochs=epochs), CONFIG, LENGTHS)) == expected


def test_adapters_leave_out_the_gradient_of_the_weights() -> None:
    expected = 2 * EVERY * LAYER + 2 * EVERY * LAYER - 3 * EVERY * MAP + 2 * POOLED_LAYER + 2 * ROWS * MAP
    assert flops(required(Job(top=2, epochs=1, rank=8), CONFIG, LENGTHS)) == expected


def test_attention_grows_with_the_square_but_for_the_pooled_layer() -> None:
    found = required(Job(top=0, epochs=1), CONFIG, [2, 4])
    assert found.attention == 4.0 * 16 * (3 * (2**2 + 4**2) + (2 + 4))


def test_seconds_at_a_rate() -> None:
    found = required(Job(top=None, epochs=1), CONFIG, LENGTHS)
    assert found.seconds(lambda *_: 1e6) == pytest.approx((flops(found) + found.attention) / 1e6)


def test_a_rate_is_measured_once_per_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.limit._SECONDS", 0.001)
    rate = measured_rate(torch.float32, "cpu")
    assert rate(8, 16, 32) == rate(8, 16, 32) > 0
