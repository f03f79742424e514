from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from frostline.engine.interpose import interposed
from frostline.engine.replay.boundary import Route
from frostline.engine.replay.discovery import find_replay
from frostline.engine.replay.replay import OUTPUT, Enough, NotReplayable, Replay, leaving
from frostline.engine.selfcheck.comparison import Comparison
from tests.engine.stubs import WIDTH, Block, Classifier, call_of, padded

if TYPE_CHECKING:
    from torch import Tensor

    from frostline.engine.replay.replay import Leaf

BATCH = padded((6, 4))
SHAPE = (2, 6)


def _find(model: Classifier, boundary: str, frozen_outputs: frozenset[int] = frozenset()) -> Replay:
    def run() -> Any:
        return model(**BATCH)

    compares = Comparison(model, call_of(BATCH), run)
    return find_replay(model, run, Route.at(model, boundary), SHAPE, compares.same_outputs, frozen_outputs)


def _taken(replay: Replay, model: Classifier, batch: dict[str, Tensor]) -> dict[Leaf, Tensor]:
    """What is stored of a batch, by where it is put back; the model runs as far as that only."""
    kept: dict[str, Tensor] = {}
    taps = [(replay, lambda stream, value: kept.update({stream.name: value.clone()}))]
    with interposed(leaving(model, taps, {})), pytest.raises(Enough):
        model(**batch)
    return {leaf: kept[stream.name] for stream in replay.streams for leaf in stream.leaves}


def test_the_input_of_the_first_layer_that_trains_is_stored() -> None:
    replay = _find(Classifier().eval(), "layer 2")
    (stream,) = replay.streams
    assert (stream.row_axis, stream.token_axis, stream.shape, stream.dtype) == (0, 1, (WIDTH,), torch.float32)
    assert [(leaf.path, leaf.side, leaf.call, leaf.index) for leaf in stream.leaves] == [
        ("body.layers.2", "input", 0, 0)
    ]
    assert set(replay.skips) == {"body.embeddings", "body.layers.0", "body.layers.1"}
    assert replay.skipped == 2


def test_beneath_the_head_one_vector_per_row_is_stored() -> None:
    (stream,) = _find(Classifier().eval(), "head").streams
    assert (stream.row_axis, stream.token_axis, stream.shape) == (0, None, (WIDTH,))


def test_what_is_taken_twice_is_stored_once() -> None:
    class Twice(Classifier):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            low = self.layers[0](self.embedded(input_ids), attention_mask)
            middle = self.layers[1](low, attention_mask)
            high = self.layers[2](middle + 0 * low, attention_mask)
            again = self.layers[1](low, attention_mask)
            return SimpleNamespace(logits=self.classifier(self.pooled(high + again, attention_mask)))

    (stream,) = _find(Twice().eval(), "layer 1").streams
    assert [(leaf.path, leaf.call) for leaf in stream.leaves] == [("body.layers.1", 0), ("body.layers.1", 1)]


def test_another_way_to_the_logits_is_found_out() -> None:
    class Around(Classifier):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            low = self.layers[0](self.embedded(input_ids), attention_mask)
            high = self.layers[2](self.layers[1](low, attention_mask), attention_mask)
            logits = self.classifier(self.pooled(high, attention_mask))
            return SimpleNamespace(logits=logits + low.mean(dim=(1, 2))[:, None])

    with pytest.raises(NotReplayable, match="on another way"):
        _find(Around().eval(), "layer 1")


def test_a_table_runs_where_its_values_decide_on_the_way() -> None:
    class Branching(Classifier):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            embedded = self.embedded(input_ids)
            if not embedded.any():
                raise ValueError("nothing is embedded")
            hidden = embedded
            for layer in self.layers:
                hidden = layer(hidden, attention_mask)
            return SimpleNamespace(logits=self.classifier(self.pooled(hidden, attention_mask)))

    assert set(_find(Branching().eval(), "layer 1").skips) == {"body.layers.0"}


def test_code_that_fails_on_what_it_is_given() -> None:
    class Picky(Classifier):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            embedded = self.embedded(input_ids)
            hidden = self.layers[0](embedded, attention_mask)
            if torch.equal(hidden, embedded):
                raise ValueError("the first layer did nothing")
            hidden = self.layers[1](hidden, attention_mask)
            return SimpleNamespace(logits=self.classifier(self.pooled(hidden, attention_mask)))

    with pytest.raises(NotReplayable, match="its code fails: ValueError: the first layer did nothing"):
        _find(Picky().eval(), "layer 1")


def test_values_that_belong_to_no_row() -> None:
    class Shared(Classifier):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            hidden = self.layers[0](self.embedded(input_ids), attention_mask)
            mean = hidden.mean(dim=(0, 1))[None, None]  # (1, 1, width): of the whole batch
            hidden = self.layers[1](mean, attention_mask[:1, :1])
            return SimpleNamespace(logits=self.classifier(hidden[:, 0]).expand(2, 2))

    with pytest.raises(NotReplayable, match=r"shape \(1, 1, 8\) that belongs to no row"):
        _find(Shared().eval(), "layer 1")


class Biased(Block):
    """Gives out a bias of positions, (1, length, width), which the first layer makes for all."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(16, WIDTH)
        self.rows: list[int] = []

    def forward(self, hidden: Tensor, mask: Tensor, bias: Tensor | None = None) -> Any:
        self.rows.append(len(hidden))
        bias = self.bias(torch.arange(hidden.shape[1]))[None] if bias is None else bias
        return super().forward(hidden + bias, mask), bias


class BiasHandedOn(Classifier):
    def __init__(self) -> None:
        super().__init__(Biased)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden, bias = self.embedded(input_ids), None
        for layer in self.layers:
            hidden, bias = layer(hidden, attention_mask, bias)
        return SimpleNamespace(logits=self.classifier(self.pooled(hidden, attention_mask)))


def test_what_is_the_same_for_all_rows_is_made_from_one() -> None:
    model = BiasHandedOn().eval()
    replay = _find(model, "layer 2")
    assert set(replay.skips) == {"body.embeddings", "body.layers.0", "body.layers.1"}
    (stream,) = replay.streams
    assert stream.shape == (WIDTH,)
    other = padded((3, 5, 2, 9), seed=1)
    with torch.no_grad():
        plain = model(**other).logits
        values = _taken(replay, model, other)
        for layer in model.layers:
            layer.rows.clear()  # type: ignore[operator, union-attr]
        with interposed(replay.entering(model, values, {}, Counter())):
            assert torch.equal(model(**other).logits, plain)
    assert [layer.rows for layer in model.layers] == [[1], [], [4]]


def test_axes_that_are_turned_round_are_found() -> None:
    class Turned(Block):
        def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
            return super().forward(hidden.transpose(0, 1), mask).transpose(0, 1)

    class PositionsFirst(Classifier):
        def __init__(self) -> None:
            super().__init__(Turned)

        def embedded(self, input_ids: Tensor) -> Tensor:
            return super().embedded(input_ids).transpose(0, 1)

        def pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
            return super().pooled(hidden.transpose(0, 1), attention_mask)

    (stream,) = _find(PositionsFirst().eval(), "layer 1").streams
    assert (stream.row_axis, stream.token_axis) == (1, 0)
    assert not stream.is_plain
    value = torch.arange(6 * 2 * WIDTH).reshape(6, 2, WIDTH)
    assert stream.rows_first(value).shape == (2, 6, WIDTH)
    assert torch.equal(stream.as_taken(stream.rows_first(value)), value)


def test_replaying_calls_neither_tables_nor_skipped_layers() -> None:
    model = Classifier().eval()
    replay = _find(model, "layer 2")
    other, calls = padded((3, 5, 2), seed=1), Counter[str]()
    with torch.no_grad():
        plain = model(**other).logits
        values = _taken(replay, model, other)
        # What is not run may be broken.
        for path in replay.skips:
            for parameter in model.get_submodule(path).parameters():
                parameter.fill_(torch.nan)
        with interposed(replay.entering(model, values, {}, calls)):
            assert torch.equal(model(**other).logits, plain)
    assert calls == replay.calls == dict.fromkeys([*replay.skips, "body.layers.2"], 1)
    assert not any("forward" in vars(module) for module in model.modules())


class TestOutputsOfFrozenParts:
    """What the forward gives out of frozen parts has no place to enter but the output itself."""

    class Generous(Classifier):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            low = self.layers[0](self.embedded(input_ids), attention_mask)
            high = self.layers[2](self.layers[1](low, attention_mask), attention_mask)
            return {"low": low, "logits": self.classifier(self.pooled(high, attention_mask))}

    def test_they_are_stored_where_nothing_that_trains_has_a_part_in_them(self) -> None:
        model = self.Generous().eval()
        replay = _find(model, "layer 2", frozenset({0}))
        assert [stream.leaves[0].path for stream in replay.streams] == ["body.layers.2", OUTPUT]
        values: dict[str, Tensor] = {}
        with torch.no_grad():
            plain = model(**BATCH)
            values.update((stream.name, value) for stream, value in replay.given_out(plain))
            assert [value.shape for value in values.values()] == [(2, 6, WIDTH)]
            leaves = {stream.leaves[0]: values[stream.name] for stream in replay.streams if stream.name in values}
            completed = replay.completed({"low": torch.zeros(2, 6, WIDTH), "logits": plain["logits"]}, leaves)
        assert torch.equal(completed["low"], plain["low"])
        assert torch.equal(completed["logits"], plain["logits"])

    def test_they_keep_it_from_being_replayed_where_they_may_not_be(self) -> None:
        with pytest.raises(NotReplayable, match="on another way"):
            _find(self.Generous().eval(), "layer 2")


def test_a_forward_that_gives_out_something_else_each_time() -> None:
    class Random(Classifier):
        def embedded(self, input_ids: Tensor) -> Tensor:
            embedded = super().embedded(input_ids)
            return embedded + next(self.numbers)

        def __init__(self) -> None:
            super().__init__()
            self.numbers = iter(range(1000))

    with pytest.raises(NotReplayable, match="something else each time"):
        _find(Random().eval(), "layer 1")
