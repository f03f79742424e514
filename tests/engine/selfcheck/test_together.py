from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from frostline.engine.fast_paths import FastPaths
from frostline.engine.runner import Runner
from frostline.engine.selfcheck.admission import admit
from frostline.engine.selfcheck.together import fallbacks, from_rows_alone, settle
from frostline.store.packed import Packed
from tests.engine.answering import frozen_model
from tests.engine.stubs import Classifier, call_of, padded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from frostline.engine.selfcheck.result import PathCheck, SelfCheck

BATCH = padded((7, 4, 5))
CALL = call_of(BATCH)
KINDS = ("one position", "replay", "padding-free", "products")


def _admitted(model: nn.Module) -> SelfCheck:
    check = admit(model, model.forward, CALL)
    assert check.paths.replay is not None
    assert check.paths.packing is not None
    return check


@pytest.fixture(scope="module")
def bert() -> tuple[nn.Module, SelfCheck]:
    """A model that replays, runs without padding, and its last layer for one position; and its self-check."""
    model = frozen_model()
    check = _admitted(model)
    assert check.paths.one_position == "first token"
    # Whether oneDNN is faster depends on the machine; that it may be used does not.
    return model, replace(check, paths=replace(check.paths, products=True, tables=True))


def _named(paths: FastPaths) -> list[str]:
    """Which paths are among them."""
    taken = (
        paths.one_position is not None,
        paths.replay is not None,
        paths.packing is not None,
        paths.products,
    )
    return [name for name, own in zip(KINDS, taken, strict=True) if own]


class TestFallbacks:
    def test_the_order(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        ways = list(fallbacks(bert[1].paths))
        assert [_named(way) for way in ways] == [
            ["one position", "replay", "padding-free", "products"],
            ["replay", "padding-free", "products"],
            ["padding-free", "products"],
            ["replay", "products"],
            ["products"],
            [],
        ]
        assert ways[0] is bert[1].paths

    def test_what_belongs_together_goes_together(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        for way in fallbacks(replace(bert[1].paths, whole=True)):
            if way.one_position is None:
                assert not way.folded
                assert not way.stored_positions
            if way.packing is None:
                assert (way.places, way.calls, way.trim) == (None, None, False)
            assert way.whole == (way.replay is not None)
            assert way.tables == way.products
            assert way.aligned == bert[1].paths.aligned

    def test_without_some_of_them(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        packed = replace(bert[1].paths, replay=None, single=None, folded=False, stored_positions={})
        assert [_named(way) for way in fallbacks(packed)] == [["padding-free", "products"], ["products"], []]
        trimmed = FastPaths(trim=True)
        assert [way.trim for way in fallbacks(trimmed)] == [True, False, False]
        assert not any(way.any for way in list(fallbacks(trimmed))[1:])


def _settle(
    model: nn.Module, check: SelfCheck, stored: Callable[[Any], Mapping[str, Packed] | None] | None = None
) -> tuple[FastPaths, PathCheck]:
    ways = fallbacks(check.paths)
    return settle(model, model.forward, CALL, ways, per_token=check.per_token, dtype=check.dtype, stored=stored)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[FastPaths], bool]], list[list[str]]]:
    """Have some paths give wrong results; the paths that are run are noted."""

    def _spoil(is_wrong: Callable[[FastPaths], bool]) -> list[list[str]]:
        ran: list[list[str]] = []
        own = Runner.run

        def run(runner: Runner, call: Any, paths: FastPaths, *arguments: Any, **options: Any) -> Any:
            ran.append(_named(paths))
            output = own(runner, call, paths, *arguments, **options)
            if is_wrong(paths):
                output.logits = output.logits * 1.001
            return output

        monkeypatch.setattr(Runner, "run", run)
        return ran

    return _spoil


class TestSettling:
    def test_what_holds_is_taken(self, bert: tuple[nn.Module, SelfCheck], spoil: Any) -> None:
        ran = spoil(lambda _: False)
        held, check = _settle(*bert)
        assert held is bert[1].paths
        assert check.admitted
        assert (check.path, check.how) == ("all", "all that was admitted, together")
        assert check.outputs is not None
        assert check.outputs <= 1e-5
        assert check.gradients is not None
        assert len(ran) == 1

    @pytest.mark.parametrize(
        ("is_wrong", "held"),
        [
            (lambda paths: paths.one_position is not None, ["replay", "padding-free", "products"]),
            (lambda paths: paths.replay is not None, ["padding-free", "products"]),
            (lambda paths: paths.packing is not None, ["replay", "products"]),
            (lambda paths: paths.packing is not None or paths.replay is not None, ["products"]),
            (lambda paths: paths.products, []),
        ],
    )
    def test_it_falls_back_to_the_next_that_holds(
        self, bert: tuple[nn.Module, SelfCheck], spoil: Any, is_wrong: Callable[[FastPaths], bool], held: list[str]
    ) -> None:
        ran = spoil(is_wrong)
        found, check = _settle(*bert)
        assert _named(found) == held
        assert ran == [_named(way) for way in fallbacks(bert[1].paths)][: len(ran)]
        assert ran[-1] == held
        assert not check.admitted  # of the first, whatever held in the end
        assert check.outputs is not None
        assert check.outputs > 1e-5

    def test_where_nothing_holds_nothing_is_taken(self, bert: tuple[nn.Module, SelfCheck], spoil: Any) -> None:
        ran = spoil(lambda _: True)
        held, check = _settle(*bert)
        assert held == FastPaths()
        assert not held.any
        assert not check.admitted
        assert len(ran) == 6

    def test_code_that_fails(self, bert: tuple[nn.Module, SelfCheck], monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise IndexError("out of range")

        monkeypatch.setattr(Runner, "run", fail)
        held, check = _settle(*bert)
        assert held == FastPaths()
        assert (check.admitted, check.how) == (False, "its code fails: IndexError: out of range")

    def test_a_plain_forward_that_fails_on_few_rows(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        model, check = bert

        def forward(**_: Any) -> Any:
            raise ValueError("not so few")

        held, found = settle(model, forward, CALL, fallbacks(check.paths), per_token=check.per_token, dtype=check.dtype)
        assert held == FastPaths()
        assert found.how == "its code fails: ValueError: not so few"

    def test_no_set_at_all(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        model, check = bert
        held, found = settle(model, model.forward, CALL, [], per_token=check.per_token, dtype=check.dtype)
        assert (held, found.admitted) == (FastPaths(), False)

    def test_a_forward_that_keeps_a_count_is_left_as_it_was(self) -> None:
        class Counting(Classifier):
            calls = 0

            def forward(self, *arguments: Any, **options: Any) -> Any:
                self.calls += 1
                return super().forward(*arguments, **options)

        model = Counting()
        paths = FastPaths(trim=True)
        held, _ = settle(model, model.forward, CALL, [paths], per_token=frozenset(), dtype=torch.float32)
        assert held is paths
        assert model.calls == 0


class TestWhatIsStored:
    def _stored(self, model: nn.Module, paths: FastPaths, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        def stored(call: Any) -> dict[str, Packed]:
            values = from_rows_alone(Runner(model, model.forward), call, paths)
            return {name: Packed(change(own.values), own.lengths) for name, own in values.items()}

        return stored

    def test_it_is_compared(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        model, check = bert
        right = self._stored(model, check.paths, lambda values: values)
        assert _settle(model, check, right)[0] is check.paths

    def test_if_it_is_wrong_the_paths_without_it_hold(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        model, check = bert
        wrong = self._stored(model, check.paths, lambda values: values * 1.01)
        held, first = _settle(model, check, wrong)
        assert _named(held) == ["replay", "padding-free", "products"]  # with values that are computed anew
        assert not first.admitted
        assert _settle(model, check)[0] is check.paths

    def test_if_nothing_is_stored_it_is_computed(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        model, check = bert
        assert _settle(model, check, lambda _: None)[0] is check.paths

    def test_it_is_asked_for_once_and_for_few_rows(self, bert: tuple[nn.Module, SelfCheck], spoil: Any) -> None:
        model, check = bert
        spoil(lambda _: True)
        asked: list[tuple[int, int]] = []
        right = self._stored(model, check.paths, lambda values: values)

        def stored(call: Any) -> Any:
            asked.append(call.shape)
            return right(call)

        _settle(model, check, stored)
        assert asked == [(3, 7)]


class TestRowsAlone:
    def test_each_row_s_values_come_from_the_row_alone(self) -> None:
        model = Classifier()
        for part in (model.get_submodule("body.embeddings"), *model.layers[:2]):
            part.requires_grad_(requires_grad=False)
        paths = _admitted(model).paths
        runner = Runner(model, model.forward)
        whole = from_rows_alone(runner, CALL, paths)
        (name,) = whole
        assert whole[name].lengths.tolist() == [7, 4, 5]
        assert whole[name].values.shape == (16, 8)
        assert not whole[name].values.requires_grad
        for row, values in enumerate(torch.split(whole[name].values, [7, 4, 5])):
            own = from_rows_alone(runner, CALL.select([row]), paths)
            assert torch.equal(own[name].values, values)

    def test_they_are_rounded_to_what_is_stored(self, bert: tuple[nn.Module, SelfCheck]) -> None:
        model, check = bert
        exact, rounded = (
            from_rows_alone(Runner(model, model.forward), CALL, check.paths, dtype) for dtype in (None, torch.bfloat16)
        )
        for name, own in exact.items():
            assert rounded[name].values.dtype == own.values.dtype == torch.float32
            assert torch.equal(rounded[name].values, own.values.bfloat16().float())
            assert not torch.equal(rounded[name].values, own.values)
