"""Calls of different kinds, what the model does with them, and what is found out anew for each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from frostline.engine.replay.replay import NotReplayable
from frostline.engine.runner import Runner
from tests.engine.answering import Stores, answer, assert_plain, engine_of, frozen_model
from tests.engine.stubs import VOCAB, WIDTH, Classifier, padded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from frostline.engine.engine import Engine

BATCH, OTHER = padded((7, 5, 3)), padded((6, 2, 4), seed=4)


class Told(Classifier):
    """Takes more than a text, adds it beneath the first layer, and knows two ways to pool."""

    def __init__(self) -> None:
        super().__init__()
        self.body.kinds = nn.Embedding(VOCAB, WIDTH)
        for part in (*self.body.children(), *self.layers[:1]):
            part.requires_grad_(requires_grad=False)
        for part in self.layers[1:]:
            part.requires_grad_(requires_grad=True)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        kinds: Tensor | None = None,
        labels: Tensor | None = None,
        pooling: str = "mean",
        **_: Any,
    ) -> Any:
        hidden = self.embedded(input_ids)
        table = self.get_submodule("body.kinds")
        if kinds is not None:
            hidden = hidden + (table(kinds) if kinds.dim() == 2 else table(kinds)[:, None])
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        pooled = self.pooled(hidden, attention_mask) if pooling == "mean" else hidden[:, 0]
        logits = self.classifier(pooled)
        loss = nn.functional.cross_entropy(logits, labels) if labels is not None else None
        return SimpleNamespace(loss=loss, logits=logits)


@pytest.fixture
def model() -> Told:
    return Told().train(mode=False)


def _per_token(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (3, 7), generator=generator) * BATCH["attention_mask"]


class TestKinds:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({}, {"kinds": _per_token(0)}),
            ({"kinds": _per_token(0)}, {"kinds": _per_token(1)}),
            ({"kinds": _per_token(0)}, {"kinds": torch.tensor([1, 2, 3])}),
            ({"kinds": torch.tensor([1, 2, 3])}, {"kinds": torch.tensor([3, 1, 2])}),
            ({"pooling": "mean"}, {"pooling": "first"}),
            ({"kinds": None}, {"kinds": torch.tensor([1, 2, 3])}),
            ({"labels": torch.tensor([0, 1, 0])}, {"labels": torch.tensor([1, 1, 0])}),
            ({"labels": torch.tensor([0, 1, 0])}, {}),
        ],
    )
    def test_each_gives_what_the_plain_forward_gives(self, model: Told, one: Any, other: Any) -> None:
        engine = engine_of(model)
        for more in (one, other, one, other):
            assert_plain(model, engine, BATCH | more)
        assert engine.answered == 4

    def test_what_was_tried_for_one_kind_does_not_hold_for_another(self, model: Told) -> None:
        engine = engine_of(model.train())  # what trains last is told of
        answer(model, engine, BATCH)
        check = engine.checked
        answer(model, engine, OTHER)
        assert engine.checked == check
        answer(model, engine, BATCH | {"pooling": "first"})
        assert engine.checked != check

    def test_labels_that_no_frozen_layer_reads_do_not_count(self, model: Told) -> None:
        stores = Stores()
        engine = engine_of(model, stores)
        for labels in ([0, 1, 0], [1, 0, 1]):
            assert_plain(model, engine, BATCH | {"labels": torch.tensor(labels)})
        assert [store.rows for store in stores.made] == [3]
        assert_plain(model, engine, BATCH | {"kinds": torch.tensor([1, 2, 3])})
        assert_plain(model, engine, BATCH | {"kinds": torch.tensor([4, 5, 6])})
        assert stores.made[-1].rows == 6 + 3 * (len(stores.made) == 1)

    def test_there_is_an_end_to_what_is_tried(self, model: Told, told: Callable[[], list[str]]) -> None:
        engine = engine_of(model)
        for number in range(14):
            assert_plain(model, engine, BATCH | {"name": f"of {number}"})
        assert engine.answered == 12
        assert sum("in more than 12 ways, of which no more are tried" in line for line in told()) == 1
        assert "12 ways" in str(engine.reason)

    def test_whether_a_call_can_be_read(self, model: Told) -> None:
        engine = engine_of(model)
        assert engine.can_read(BATCH)
        assert not engine.can_read({"input_ids": BATCH["input_ids"][None]})
        assert str(engine.reason) == "None"
        answer(model, engine, BATCH | {"more": [1, 2]})
        assert "more is a list" in str(engine.reason)


class Counting(Classifier):
    """Keeps a count of calls in a buffer, and a list of what it saw."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.seen: list[int] = []
        for part in (self.get_submodule("body.embeddings"), self.layers[0]):
            part.requires_grad_(requires_grad=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        self.count += 1
        self.seen.append(len(input_ids))
        return super().forward(input_ids, attention_mask)


def test_what_the_model_keeps_is_what_its_own_calls_left() -> None:
    model = Counting().train(mode=False)
    engine = engine_of(model)
    for calls, batch in enumerate((BATCH, OTHER, BATCH, padded((20, 3))), start=1):
        answer(model, engine, batch)
        assert model.count.item() == calls
        assert len(model.seen) == calls
    engine.fill(padded((5, 4), seed=9))
    engine.measure(BATCH, BATCH, None)
    assert model.count.item() == 4
    assert_plain(model, engine, BATCH)


class Drawing(Classifier):
    """Masks tokens at random while it trains, before anything is frozen."""

    def __init__(self, chance: float = 0.3) -> None:
        super().__init__()
        self.chance = chance
        for part in (self.get_submodule("body.embeddings"), self.layers[0]):
            part.requires_grad_(requires_grad=False)

    def embedded(self, input_ids: Tensor) -> Tensor:
        if self.training:
            input_ids = input_ids.masked_fill(torch.rand(input_ids.shape) < self.chance, 1)
        return super().embedded(input_ids)


def test_random_numbers_beneath_the_boundary_keep_it_from_being_replayed() -> None:
    model, stores = Drawing().train(), Stores()
    engine = engine_of(model, stores)
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        found.append(answer(model, engine, BATCH))
        torch.manual_seed(seed)
        torch.testing.assert_close(found[-1], model(**BATCH).logits, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found[0], found[1])
    assert engine.checked is not None
    assert engine.checked.boundary is None
    assert stores.made == []


class ByMode(Classifier):
    """Does something else beneath the boundary in train mode, without chance."""

    def __init__(self) -> None:
        super().__init__()
        for part in (self.get_submodule("body.embeddings"), self.layers[0]):
            part.requires_grad_(requires_grad=False)

    def embedded(self, input_ids: Tensor) -> Tensor:
        return super().embedded(input_ids) * (2 if self.training else 1)


def test_what_depends_on_the_mode_is_stored_by_mode() -> None:
    model = ByMode()
    for part in (model.get_submodule("body"), model.layers[0]):
        part.train(mode=False)  # as frozen modules are
    engine = engine_of(model)
    for training in (True, False, True, False):
        model.training = training
        assert_plain(model, engine, BATCH)
    assert engine.answered == 4


class TestChanges:
    def _edited(self, engine: Engine, model: nn.Module) -> Any:
        answer(model, engine, BATCH)
        store = engine.store
        engine.forget_if_changed()
        assert engine.store is store is not None  # nothing has changed
        return store

    @pytest.mark.parametrize("path", ["bert.encoder.layer.0.output.dense.weight", "bert.embeddings.LayerNorm.bias"])
    def test_writing_past_torch_is_noticed_where_one_looks(self, path: str) -> None:
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        self._edited(engine, model)
        model.get_parameter(path).data.add_(1)
        engine.forget_if_changed()
        assert engine.store is None
        assert_plain(model, engine, BATCH)
        assert len(stores.made) == 2

    def test_what_trains_may_be_written(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        store = self._edited(engine, model)
        model.get_parameter("classifier.weight").data.add_(1)
        engine.forget_if_changed()
        assert engine.store is store
        assert_plain(model, engine, BATCH)

    def test_nothing_is_kept_any_more_once_that_is_said(self) -> None:
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        answer(model, engine, BATCH)
        engine.stop_storing()
        assert engine.store is None
        assert stores.made[0].rows == 0  # closed
        for batch in (BATCH, OTHER):
            assert_plain(model, engine, batch)
        assert len(stores.made) == 1


class TestRefusals:
    """A call that turns out to need the plain path gets it, and its state and random numbers are as if at once."""

    def _refusing(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        own, left = Runner.run, iter(range(times))

        def run(*arguments: Any, **options: Any) -> Any:
            output = own(*arguments, **options)
            if next(left, None) is not None:
                raise NotReplayable("after all, it does not fit")
            return output

        monkeypatch.setattr(Runner, "run", run)

    def test_one_does_not_end_it(
        self, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]], model: Told
    ) -> None:
        engine = engine_of(model)
        assert_plain(model, engine, BATCH)
        self._refusing(monkeypatch, 1)
        for _ in range(3):
            assert_plain(model, engine, BATCH)
        assert engine.answered == 3
        assert engine.checked is not None
        assert engine.checked.paths.any
        assert told().count("Plain path: after all, it does not fit.") == 1

    def test_some_do(self, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]], model: Told) -> None:
        engine = engine_of(model)
        assert_plain(model, engine, BATCH)
        self._refusing(monkeypatch, 1000)
        for _ in range(5):
            assert_plain(model, engine, BATCH)
        assert engine.answered == 1
        assert engine.checked is not None
        assert not engine.checked.paths.any
        assert told().count("Plain path: after all, it does not fit.") == 1
