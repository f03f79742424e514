from __future__ import annotations

from threading import Event, Thread
from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from frostline.engine.interpose import interposed
from frostline.engine.packing.packing import Packing, mixers
from frostline.engine.token_layout import TokenLayout
from tests.models import tiny

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
ROWS = TokenLayout(MASK)
SLOTS = 16  # 8 tokens, rounded up


class Watcher(nn.Module):
    """A layer that remembers the shapes of what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.Sequential(nn.Identity())
        self.shapes: list[tuple[int, ...]] = []
        self.mixer[0].register_forward_hook(lambda _, given, __: self.shapes.append(tuple(given[0].shape)))

    def forward(self, hidden: torch.Tensor, *more: Any) -> torch.Tensor:
        self.shapes += [tuple(own.shape) for own in (hidden, *more)]
        mixed: torch.Tensor = self.mixer(hidden)
        return mixed + 1


def _run(packing: Packing, layers: list[Watcher], *more: torch.Tensor) -> torch.Tensor:
    hidden = torch.arange(3.0 * 4 * 2).reshape(3, 4, 2)
    with interposed(packing.forwards(layers, 0)):
        for layer in layers:
            hidden = layer(hidden, *more)
    return hidden


def test_layers_take_real_tokens_only_and_what_follows_sees_padding_again() -> None:
    layers = [Watcher(), Watcher()]
    output = _run(Packing(ROWS, "attention"), layers)
    assert [layer.shapes for layer in layers] == [[(1, SLOTS, 2)] * 2] * 2
    plain = torch.arange(3.0 * 4 * 2).reshape(3, 4, 2) + 2
    assert torch.equal(output, plain * MASK[..., None])


def test_modules_that_mix_tokens_take_padded_ones() -> None:
    layer = Watcher()
    _run(Packing(ROWS, "modules"), [layer])
    assert layer.shapes == [(1, SLOTS, 2), (3, 4, 2)]


def test_what_shares_the_axes_is_packed_and_nothing_else() -> None:
    layer = Watcher()
    rotary, positions, mask = torch.ones(1, 4, 6), torch.ones(3, 4, dtype=torch.int64), torch.ones(3, 1, 4, 4)
    _run(Packing(ROWS, "attention"), [layer], rotary, positions, mask, torch.ones(5, 4, 2), torch.ones(3, 5, 2))
    assert layer.shapes[1:6] == [(1, SLOTS, 6), (1, SLOTS), (3, 1, 4, 4), (5, 4, 2), (3, 5, 2)]


def test_what_was_seen_in_a_trial_decides_afterwards() -> None:
    trial = Packing(ROWS, "attention")
    _run(trial, [Watcher()], torch.ones(8, 2))
    layer = Watcher()
    _run(Packing(ROWS, "attention", frozenset(trial.seen)), [layer], torch.ones(3, 4, 5))
    assert layer.shapes[1] == (3, 4, 5)  # as long as the text by chance: the trial had none there


@pytest.mark.parametrize(
    ("kind", "layer", "names"),
    [
        ("bert", "bert.encoder.layer.0", ["attention"]),
        ("gpt2", "transformer.h.0", ["attn"]),
        ("llama", "model.layers.0", ["self_attn"]),
    ],
)
def test_modules_that_mix_are_told_by_their_names(kind: str, layer: str, names: list[str]) -> None:
    module = tiny(kind).get_submodule(layer)
    paths = {own: path for path, own in module.named_modules()}
    assert [paths[own] for own in mixers(module)] == names


def test_the_attention_interface_is_as_before() -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    packing = Packing(ROWS, "attention")
    with packing.attending():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before

    def broken() -> None:
        with packing.attending():
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_one_thread_may_end_while_another_attends() -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    entered, may_leave = Event(), Event()

    def other() -> None:
        with Packing(ROWS, "attention").attending():
            entered.set()
            may_leave.wait(60)

    thread = Thread(target=other)
    thread.start()
    assert entered.wait(60)
    with Packing(ROWS, "attention").attending():
        may_leave.set()
        thread.join()
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


@pytest.mark.parametrize("heads_that_share", [1, 2])
def test_attention_is_within_each_row(heads_that_share: int) -> None:
    class Grouped(nn.Module):
        num_key_value_groups = heads_that_share
        is_causal = False

    generator = torch.Generator().manual_seed(0)
    heads = {"query": 4, "key": 4 // heads_that_share, "value": 4 // heads_that_share}
    padded = {name: torch.randn(3, count, 4, 8, generator=generator) for name, count in heads.items()}
    packed = {name: ROWS.fill(ROWS.pack(own.transpose(1, 2))).transpose(0, 1)[None] for name, own in padded.items()}
    mask = MASK[:, None, None, :].expand(3, 1, 4, 4)
    plain, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](Grouped(), *padded.values(), mask, scaling=0.3)
    with Packing(ROWS, "attention").attending():
        own, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](Grouped(), *packed.values(), mask, scaling=0.3)
        elsewhere, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](Grouped(), *padded.values(), mask, scaling=0.3)
    torch.testing.assert_close(ROWS.cut(own[0]), plain[MASK], rtol=1e-5, atol=1e-6)
    assert torch.equal(elsewhere, plain)
