from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from frostline.engine.engine import Engine
from frostline.engine.runner import Runner
from frostline.engine.selfcheck import guard as module
from frostline.engine.selfcheck.guard import Failure, Guard, Seen
from frostline.engine.selfcheck.result import PathCheck
from frostline.engine.settings import EngineSettings
from frostline.store.packed import Packed
from tests.engine.answering import Stores, answer, assert_plain, engine_of, frozen_model
from tests.engine.stubs import Classifier, padded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from frostline.store.store import Store

FINE = PathCheck("all", admitted=True, how="", outputs=2e-7, gradients=3e-6)
WRONG = PathCheck("all", admitted=False, how="", outputs=0.5, gradients=0.25)


class Clock:
    """What the guard takes for the time, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(module, "time", own)
    return own


def _due(guard: Guard, seen: Seen, width: int, calls: int) -> list[int]:
    """Which of so many calls of one width are due, counted from those before."""
    before = seen.calls
    return [before + number for number in range(1, calls + 1) if guard.is_due(seen, width)]


class TestWhenItIsDue:
    def test_the_tenth_the_hundredth_and_so_on(self, clock: Clock) -> None:
        guard = Guard()
        clock.now += 1e6
        assert _due(guard, Seen(), 12, 2000) == [10, 100, 1000]

    def test_each_kind_has_its_own_count(self, clock: Clock) -> None:
        guard, one, other = Guard(), Seen(), Seen()
        clock.now += 1e6
        assert _due(guard, one, 12, 10) == [10]
        assert _due(guard, other, 12, 9) == []
        assert _due(guard, other, 12, 1) == [10]

    def test_a_width_that_was_not_compared_yet(self, clock: Clock) -> None:
        guard, seen = Guard(), Seen()
        clock.now += 1e6
        assert [guard.is_due(seen, width) for width in (12, 13, 12, 13, 9, 15)] == [
            False,
            True,
            False,
            False,
            True,
            True,
        ]

    def test_the_first_call_is_that_of_the_self_check(self, clock: Clock) -> None:
        clock.now += 1e6
        assert not Guard().is_due(Seen(), 10_000)

    def test_one_that_is_switched_off(self, clock: Clock) -> None:
        guard = Guard(is_on=False)
        clock.now += 1e6
        assert not any(guard.is_due(seen, width) for seen in [Seen()] for width in (3, 30, 300, *[30] * 100))


class TestItsBudget:
    """A hundredth of the time, but for widths of another order."""

    def test_nothing_is_due_before_there_was_time(self, clock: Clock) -> None:
        guard, seen = Guard(), Seen()
        guard.is_due(seen, 12)
        guard.note(FINE, 0.5)
        clock.now += 99.9  # and it takes half a second again
        assert _due(guard, seen, 12, 20) == []
        clock.now += 0.2
        assert _due(guard, seen, 12, 1) == [22]  # which was due before, and waited

    def test_what_is_due_waits_for_it_once(self, clock: Clock) -> None:
        guard, seen = Guard(), Seen()
        guard.is_due(seen, 12)
        guard.note(FINE, 1.0)
        assert _due(guard, seen, 12, 250) == []
        clock.now += 1e6
        assert _due(guard, seen, 12, 750) == [252, 1000]

    def test_all_that_it_took_counts(self, clock: Clock) -> None:
        guard, seen = Guard(), Seen()
        guard.is_due(seen, 12)
        for _ in range(10):
            guard.note(FINE, 1.0)
        clock.now += 1099.0
        assert not guard.is_due(seen, 13)
        clock.now += 2.0
        assert guard.is_due(seen, 13)

    def test_another_power_of_two_in_width_is_compared_at_any_cost(self, clock: Clock) -> None:
        guard, seen = Guard(), Seen()
        guard.is_due(seen, 12)
        guard.note(FINE, 1e9)
        assert [guard.is_due(seen, width) for width in (15, 16, 17, 31, 32, 16, 64, 63, 5)] == [
            False,
            True,
            False,
            False,
            True,
            False,
            True,
            False,
            False,
        ]

    def test_short_widths_are_all_of_one_class(self, clock: Clock) -> None:
        guard, seen = Guard(), Seen()
        guard.is_due(seen, 2)
        guard.note(FINE, 1e9)
        assert not any(guard.is_due(seen, width) for width in (3, 4, 8, 15))
        assert guard.is_due(seen, 16)


def test_what_it_tells(clock: Clock) -> None:
    guard = Guard()
    for check in (FINE, replace(FINE, outputs=5e-7, gradients=1e-6), WRONG, PathCheck("all", admitted=False, how="x")):
        guard.note(check, 0.25)
    guard.failures.append(Failure(7, 0.5, 0.25, "given up: replay"))
    assert guard.compared == 4
    assert guard.to_dict() == {
        "compared": 4,
        "largest_difference_of_outputs": 5e-7,
        "largest_difference_of_gradients": 3e-6,
        "failures": [{"call": 7, "outputs": 0.5, "gradients": 0.25, "consequence": "given up: replay"}],
        "seconds": 1.0,
    }


# In the engine

BATCH, OTHER = padded((7, 5, 3)), padded((6, 2), seed=4)


def _wider(width: int, batch: dict[str, Tensor] = BATCH) -> dict[str, Tensor]:
    """The same texts with more padding, which is of no concern but to the guard."""
    return {name: torch.nn.functional.pad(value, (0, width - value.shape[1])) for name, value in batch.items()}


@pytest.fixture(params=["one position", "mean"])
def frozen(request: pytest.FixtureRequest) -> nn.Module:
    """A model whose head reads one position, or all of them; a layer is frozen."""
    if request.param == "one position":
        return frozen_model()
    model = Classifier()
    for part in (model.get_submodule("body.embeddings"), model.layers[0]):
        part.requires_grad_(requires_grad=False)
    return model.train(mode=False)


BODIES = ("bert.encoder.layer.0.output.dense.weight", "body.layers.0.dense.weight")


def _frozen_weight(model: nn.Module) -> Tensor:
    named = dict(model.named_parameters())
    return next(named[name] for name in BODIES if name in named)


class Damaged(Stores):
    """Opens one store that gives out wrong values, and then others that do not."""

    def open(self, *arguments: Any) -> Store:
        store = super().open(*arguments)
        if len(self.made) == 1:
            own = store.get

            def get(digests: Any) -> dict[str, Packed]:
                return {name: Packed(value.values * 1.01, value.lengths) for name, value in own(digests).items()}

            store.get = get  # type: ignore[method-assign]
        return store


class TestInTheEngine:
    def test_all_is_well(self, frozen: nn.Module, told: Callable[[], list[str]]) -> None:
        engine = engine_of(frozen)
        for batch in (BATCH, _wider(12), _wider(20), _wider(33)):
            assert_plain(frozen, engine, batch)
        assert engine.guard.compared == 3
        assert engine.guard.failures == []
        assert engine.guard.seconds > 0
        assert engine.guard.to_dict()["largest_difference_of_outputs"] <= 1e-5
        assert not any("Guard" in line for line in told())

    def test_a_store_that_gives_out_something_else(self, frozen: nn.Module, told: Callable[[], list[str]]) -> None:
        stores = Damaged()
        engine = engine_of(frozen, stores)
        wrong, right = answer(frozen, engine, BATCH), frozen(**BATCH).logits
        assert not torch.allclose(wrong, right, atol=1e-5)
        for batch in (_wider(20), BATCH, _wider(20), OTHER, BATCH):
            assert_plain(frozen, engine, batch)
        (failure,) = engine.guard.failures
        assert failure.call == 2
        assert failure.outputs is not None
        assert failure.outputs > 1e-5
        (line,) = [line for line in told() if line.startswith("Guard: ")]
        assert line.startswith("Guard: call 2 repeated plainly: outputs differ by ")
        assert line.endswith(f"; {failure.consequence}.")

    def test_a_frozen_weight_that_is_written_past_torch(self, frozen: nn.Module, told: Callable[[], list[str]]) -> None:
        engine = engine_of(frozen)
        assert_plain(frozen, engine, BATCH)
        _frozen_weight(frozen).data.mul_(2)
        stale, right = answer(frozen, engine, BATCH), frozen(**BATCH).logits
        assert not torch.allclose(stale, right, atol=1e-5)  # nobody can notice that at once
        for batch in (_wider(20), BATCH, _wider(20), OTHER, BATCH):
            assert_plain(frozen, engine, batch)
        assert len(engine.guard.failures) == 1
        assert [line for line in told() if line.startswith("Guard: call 3 repeated plainly: ")]

    def test_what_was_stored_is_stored_anew(self, frozen: nn.Module) -> None:
        stores = Stores()
        engine = engine_of(frozen, stores)
        answer(frozen, engine, BATCH)
        _frozen_weight(frozen).data.mul_(2)
        assert_plain(frozen, engine, _wider(20))
        assert len(stores.made) == 2
        assert engine.checked is not None
        assert engine.checked.boundary == "layer 1"
        assert engine.checked.paths.replay is not None
        assert (stores.made[0].rows, stores.made[1].rows) == (0, 3)
        assert "stored anew" in engine.guard.failures[0].consequence

    def test_what_is_wrong_on_disk_is_not_taken_again(self, frozen: nn.Module, tmp_path: Path) -> None:
        stores = Damaged(folder=tmp_path)
        engine = engine_of(frozen, stores)
        answer(frozen, engine, BATCH)
        assert_plain(frozen, engine, _wider(20))
        assert len(stores.made) == 2
        assert engine.store is None
        assert engine.guard.failures[0].consequence.endswith("no more is stored")
        assert engine.gave_up_storing
        engine.use(stores)
        for batch in (BATCH, _wider(20), OTHER):
            assert_plain(frozen, engine, batch)
        assert len(stores.made) == 2

    def test_a_path_that_is_wrong_after_all(
        self, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
    ) -> None:
        model = frozen_model()
        engine = engine_of(model)
        assert_plain(model, engine, BATCH)
        own = Runner.run

        def run(runner: Runner, call: Any, paths: Any, *arguments: Any, **options: Any) -> Any:
            output = own(runner, call, paths, *arguments, **options)
            if paths.packing is not None:
                output.logits = output.logits * 1.001
            return output

        monkeypatch.setattr(Runner, "run", run)
        for batch in (_wider(20), BATCH, OTHER):
            assert_plain(model, engine, batch)
        assert engine.checked is not None
        assert engine.checked.paths.packing is None
        (failure,) = engine.guard.failures
        assert failure.consequence.startswith("given up: padding-free layers")
        assert sum(line.startswith("Guard: ") for line in told()) == 1

    def test_an_error_on_the_fast_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = frozen_model()
        engine = engine_of(model)
        answer(model, engine, BATCH)

        def run(*_: Any, **__: Any) -> Any:
            raise IndexError("out of range")

        monkeypatch.setattr(Runner, "run", run)
        assert_plain(model, engine, _wider(20))
        (failure,) = engine.guard.failures
        assert (failure.outputs, failure.gradients) == (None, None)
        assert engine.checked is not None
        assert not engine.checked.paths.any

    def test_switched_off(self, frozen: nn.Module) -> None:
        engine = Engine(frozen, EngineSettings(guard=False))
        engine.use(Damaged())
        for batch in (BATCH, _wider(20), _wider(40)):
            answer(frozen, engine, batch)
        assert engine.guard.compared == 0
        assert engine.guard.failures == []

    def test_a_repetition_leaves_everything_as_it_was(self, frozen: nn.Module) -> None:
        engine = engine_of(frozen)
        answer(frozen, engine, BATCH)
        before = {name: value.clone() for name, value in frozen.state_dict().items()}
        versions = [parameter._version for parameter in frozen.parameters()]
        random = torch.get_rng_state()
        answer(frozen, engine, _wider(20))
        assert engine.guard.compared == 1
        assert torch.equal(torch.get_rng_state(), random)
        assert [parameter._version for parameter in frozen.parameters()] == versions
        assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
        assert all(parameter.grad is None for parameter in frozen.parameters())

    def test_dropout_draws_as_without_it(self) -> None:
        drawn = []
        for is_on in (True, False):
            torch.manual_seed(0)
            model = frozen_model().train()
            engine = Engine(model, EngineSettings(guard=is_on))
            engine.use(Stores())
            torch.manual_seed(1)
            drawn.append([answer(model, engine, batch).detach() for batch in (BATCH, _wider(20), BATCH)])
            assert engine.guard.compared == int(is_on)
        assert all(torch.equal(*pair) for pair in zip(*drawn, strict=True))
