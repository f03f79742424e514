"""What a model keeps from call to call, and random numbers, while ways to run it are compared."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from frostline.base.random_state import seed_all
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.selfcheck.comparison import Comparison
from frostline.engine.selfcheck.model_state import KeptState, state_of
from tests.engine.stubs import Block, Classifier, call_of, padded

if TYPE_CHECKING:
    from torch import Tensor

BATCH = padded((6, 4))


class Keeping(Classifier):
    """Keeps a count, a bank, a list, a mean and a generator of its own."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__(Block, 1)
        self.calls = 0
        self.seen: list[Any] = []
        self.queue: deque[int] = deque(maxlen=2)
        self.sums = {"all": torch.zeros(2)}
        self.register_buffer("mean", torch.zeros(2))
        self.generator = torch.Generator().manual_seed(7)
        self.numbers = np.random.default_rng(7)
        self.draws = random.Random(7)  # noqa: S311 - no secret

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        logits = super().forward(input_ids, attention_mask).logits
        drawn = torch.rand((), generator=self.generator) + self.numbers.random() + self.draws.random()
        self.calls += 1
        self.seen.append(logits.detach())
        self.queue.append(self.calls)
        with torch.no_grad():
            self.sums["all"] += logits.sum(0)
            self.mean.mul_(0.9).add_(logits.mean(0))
        return {"logits": logits + self.calls * self.mean + drawn}


def _held(model: Keeping) -> list[Any]:
    return [
        model.calls,
        len(model.seen),
        list(model.queue),
        model.sums["all"].tolist(),
        model.mean.tolist(),
        torch.rand((), generator=_copy(model.generator)).item(),
        str(model.numbers.bit_generator.state),
        model.draws.getstate(),
    ]


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())


class TestState:
    def test_all_runs_begin_from_the_same(self) -> None:
        model = Keeping()
        model(**BATCH)
        before = _held(model)
        compares = Comparison(model, call_of(BATCH), lambda: model(**BATCH))
        assert compares.changes
        assert _held(model) == before
        for _ in range(2):
            assert compares.check("replay", "", lambda: model(**BATCH)).admitted
            assert compares.same_outputs(lambda: model(**BATCH))
            assert _held(model) == before
        model(**BATCH)
        assert _held(model) != before

    def test_it_is_put_back_where_a_run_fails(self) -> None:
        model = Keeping()

        def broken() -> Any:
            model(**BATCH)
            raise NotReplayable("after all")

        compares, before = Comparison(model, call_of(BATCH), lambda: model(**BATCH)), _held(model)
        check = compares.check("replay", "", broken)
        assert (check.admitted, check.how, check.outputs) == (False, "after all", None)
        assert not compares.same_outputs(broken)
        assert _held(model) == before

    @pytest.mark.parametrize("attribute", ["calls", "mean", "sums"])
    def test_a_run_that_keeps_something_else_is_not_the_same(self, attribute: str) -> None:
        model = Keeping()

        def run() -> Any:
            output = model(**BATCH)
            with torch.no_grad():
                if attribute == "calls":
                    model.calls += 1
                elif attribute == "mean":
                    model.mean += 1
                else:
                    model.sums["all"] += 1
            return output

        check = Comparison(model, call_of(BATCH), lambda: model(**BATCH)).check("replay", "", run)
        assert not check.admitted
        assert "keeps state" in check.how
        assert check.outputs == 0

    def test_a_model_without_any_is_left_alone(self) -> None:
        model = Classifier(Block, 1)
        assert not Comparison(model, call_of(BATCH), lambda: model(**BATCH)).changes

    def test_what_is_seen_of_it(self) -> None:
        found = {name.partition(" ")[2]: value for name, value in state_of(Keeping()).items()}
        assert {"calls", "sums.all", "mean"} <= found.keys()
        assert not any("weight" in name for name in found)

    def test_objects_keep_their_identity(self) -> None:
        model = Keeping()
        kept, own = KeptState(model), (model.seen, model.sums["all"], model.mean)
        model(**BATCH)
        kept.restore()
        assert all(one is other for one, other in zip(own, (model.seen, model.sums["all"], model.mean), strict=True))
        assert model.seen == []


class TestRandomNumbers:
    def test_each_run_draws_the_same(self) -> None:
        model = Classifier(Block, 1)

        def run() -> Any:
            drawn = torch.rand(2) + random.random() + np.random.rand()  # noqa: NPY002, S311
            return model(**BATCH).logits + drawn

        compares = Comparison(model, call_of(BATCH), run)
        assert compares.check("replay", "", run).admitted
        assert compares.same_outputs(run)
        assert not compares.check("replay", "", lambda: (torch.rand(1), run())[1]).admitted
        other = compares.observe(run, seed=1)
        assert compares.output_difference(other) > 1e-3

    def test_seeds_hold_for_all_generators(self) -> None:
        drawn = []
        for seed in (3, 3, 4):
            seed_all(seed)
            drawn.append((torch.rand(()).item(), random.random(), np.random.rand()))  # noqa: NPY002, S311
        assert drawn[0] == drawn[1]
        assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))

    def test_known_dropout_is_off_and_modes_are_as_they_are(self) -> None:
        model = nn.Sequential(nn.Dropout(0.5)).train()
        modes: list[bool] = []

        def run() -> Any:
            modes.append(model[0].training)
            return model(torch.ones(2, 3)) + 0 * weight.sum()

        weight = nn.Parameter(torch.ones(2))
        model.register_parameter("weight", weight)
        compares = Comparison(model, call_of(BATCH), run)
        assert torch.equal(compares.plain.outputs["output"], torch.ones(2, 3))
        assert modes == [True]
