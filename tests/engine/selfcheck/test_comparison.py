from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from frostline.engine.outputs import tensors_of
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.selfcheck.comparison import Comparison, difference, failed
from tests.engine.stubs import Block, Classifier, call_of, padded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BATCH = padded((6, 4))
ONE, TWO = torch.tensor([1.0]), torch.tensor([2.0])


@dataclass
class Answer:
    """A forward may give out an object of any class."""

    logits: Tensor
    more: dict[str, Any]


class Slow(nn.Module):
    """Holds a tensor; it is a module, of which none is an output."""

    held = ONE


class TestOutputs:
    @pytest.mark.parametrize(
        ("output", "places"),
        [
            (ONE, ["output"]),
            ((ONE, TWO), ["[0]", "[1]"]),
            ([ONE, [TWO, None]], ["[0]", "[1][0]"]),
            ({"a": ONE, "b": {"c": TWO}}, ["a", "b.c"]),
            (OrderedDict(loss=ONE, hidden=(ONE, TWO)), ["loss", "hidden[0]", "hidden[1]"]),
            (SequenceClassifierOutput(loss=ONE, logits=TWO), ["loss", "logits"]),
            (SimpleNamespace(logits=ONE), ["logits"]),
            (Answer(ONE, {"hidden": [TWO]}), ["logits", "more.hidden[0]"]),
            ([SimpleNamespace(a=ONE)], ["[0].a"]),
            ({0: ONE, 1: "text", 2: 3}, ["0"]),
            (None, []),
            ("text", []),
            (Slow(), []),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_every_tensor_in_whatever_holds_it(self, output: Any, places: list[str]) -> None:
        assert list(tensors_of(output)) == places

    def test_what_holds_itself_has_an_end(self) -> None:
        loop: list[Any] = [ONE]
        loop.append(loop)
        assert "[0]" in tensors_of(loop)


class TestDifferences:
    """Relative to the size of the values, and never a number where they do not compare."""

    @pytest.mark.parametrize(
        ("own", "other", "least", "wanted"),
        [
            ([1.0, 2.0], [1.0, 2.0], 1.0, 0.0),
            ([1.0, 2.5], [1.0, 2.0], 1.0, 0.25),
            ([0.5], [0.25], 1.0, 0.25),
            ([0.5], [0.25], 0.0, 1.0),
            ([1.0, math.nan], [1.0, math.nan], 1.0, 0.0),
            ([1.5, math.nan], [1.0, math.nan], 1.0, 0.5),
            ([1.0, -math.inf], [1.0, -math.inf], 1.0, 0.0),
            ([math.nan, 1.0], [1.0, math.nan], 1.0, math.inf),
            ([1.0, 1.0], [1.0, math.nan], 1.0, math.inf),
            ([1.0, math.nan], [1.0, 1.0], 1.0, math.inf),
            ([1.0, math.inf], [1.0, -math.inf], 1.0, math.inf),
            ([], [], 1.0, 0.0),
            ([1.0], [1.0, 1.0], 1.0, math.inf),
        ],
    )
    def test_of_two_tensors(self, own: list[float], other: list[float], least: float, wanted: float) -> None:
        assert difference(torch.tensor(own), torch.tensor(other), least) == pytest.approx(wanted)

    def test_integers_are_the_same_or_not(self) -> None:
        assert difference(torch.tensor([1, 2]), torch.tensor([1, 2]), 1.0) == 0
        assert difference(torch.tensor([1, 2]), torch.tensor([1, 3]), 1.0) == math.inf
        assert difference(torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), 1.0) == math.inf

    def test_a_gradient_that_is_missing_counts_as_zeros(self) -> None:
        assert difference(None, None, 1.0) == 0
        assert difference(None, torch.zeros(2), 1.0) == difference(torch.zeros(2), None, 1.0) == 0
        assert difference(None, ONE, 1.0) == difference(ONE, None, 1.0) == math.inf


class Giving(Classifier):
    """Gives out what it is told to, made of logits, (rows, 2), and hidden states, (rows, length, width)."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__(Block, 1)
        self.make = make

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden = self.layers[0](self.embedded(input_ids), attention_mask)
        return self.make(self.classifier(self.pooled(hidden, attention_mask)), hidden)


def _comparison(
    make: Callable[[Tensor, Tensor], Any], **options: Any
) -> tuple[Comparison, Callable[[Callable[[Tensor, Tensor], Any]], Callable[[], Any]]]:
    """A comparison with a plain run, and what makes other runs of the same model."""
    model = Giving(make)

    def run_with(other: Callable[[Tensor, Tensor], Any]) -> Callable[[], Any]:
        def run() -> Any:
            model.make = other
            try:
                return model(**BATCH)
            finally:
                model.make = make

        return run

    return Comparison(model, call_of(BATCH), lambda: model(**BATCH), **options), run_with


def _usual(logits: Tensor, hidden: Tensor) -> Any:
    return {"logits": logits, "loss": logits.square().mean(), "hidden": hidden}


BEHIND = ~BATCH["attention_mask"].bool()


class TestWhatCounts:
    def test_the_same_run_agrees(self) -> None:
        compares, run_with = _comparison(_usual)
        check = compares.check("replay", "in words", run_with(_usual))
        assert (check.path, check.admitted, check.how) == ("replay", True, "in words")
        assert check.outputs == check.gradients == 0

    @pytest.mark.parametrize(
        "other",
        [
            lambda logits, hidden: _usual(logits, hidden) | {"logits": logits + 1e-3},
            lambda logits, hidden: _usual(logits, hidden) | {"loss": logits.square().mean() * 1.001},
            lambda logits, hidden: _usual(logits, hidden) | {"hidden": hidden.index_fill(1, torch.tensor(2), 0.0)},
            lambda logits, hidden: _usual(logits, hidden) | {"more": logits},
            lambda logits, hidden: {"logits": logits, "loss": logits.square().mean()},
            lambda logits, hidden: _usual(logits, hidden) | {"logits": logits.to(torch.int64)},
            lambda logits, hidden: _usual(logits, hidden) | {"loss": logits.square().mean() * torch.nan},
        ],
        ids=["logits", "the loss", "hidden states", "one more", "one fewer", "a dtype", "not a number"],
    )
    def test_each_output(self, other: Any) -> None:
        compares, run_with = _comparison(_usual)
        check = compares.check("replay", "", run_with(other))
        assert not check.admitted
        assert check.how == "its results differ from the plain path's"
        assert check.outputs is not None
        assert check.outputs > 1e-5
        assert not compares.same_outputs(run_with(other))

    def test_gradients(self) -> None:
        compares, run_with = _comparison(_usual)
        other = run_with(lambda logits, hidden: _usual(logits.detach() + (logits - logits.detach()) * 1.01, hidden))
        check = compares.check("replay", "", other)
        assert not check.admitted
        assert check.outputs is not None
        assert check.outputs < 1e-5
        assert check.gradients is not None
        assert 1e-3 < check.gradients < 0.1
        assert compares.same_outputs(other)

    def test_a_parameter_that_gets_none(self) -> None:
        compares, run_with = _comparison(_usual)
        other = run_with(lambda logits, hidden: _usual(logits.detach() + 0 * hidden.sum(), hidden))
        assert compares.check("replay", "", other).gradients == math.inf

    def test_gradients_of_each_output_and_not_of_their_sum_only(self) -> None:
        """What one output has too much and the other too little cancels in a plain sum."""

        def swapped(logits: Tensor, hidden: Tensor) -> Any:
            return {"logits": logits.flip(1).detach() * 0 + logits.detach() + (logits - logits.detach()).flip(1)}

        compares, run_with = _comparison(lambda logits, hidden: {"logits": logits})
        check = compares.check("replay", "", run_with(swapped))
        assert check.outputs == pytest.approx(0, abs=1e-6)
        assert not check.admitted

    def test_where_no_gradient_is_asked_for_outputs_alone_count(self) -> None:
        with torch.no_grad():
            compares, run_with = _comparison(_usual)
            check = compares.check("replay", "", run_with(lambda logits, hidden: _usual(logits.detach(), hidden)))
        assert check.admitted
        assert compares.gradients == ()

    def test_a_loss_that_is_no_number_on_both_sides_hides_nothing_else(self) -> None:
        def no_labels(logits: Tensor, hidden: Tensor) -> Any:
            return _usual(logits, hidden) | {"loss": logits.square().mean() * torch.nan}

        compares, run_with = _comparison(no_labels)
        assert compares.check("replay", "", run_with(no_labels)).admitted
        assert compares.gradients
        assert any(value is not None and value.any() for value in compares.gradients)
        other = run_with(lambda logits, hidden: no_labels(logits * 1.001, hidden))
        assert not compares.check("replay", "", other).admitted
        other = run_with(lambda logits, hidden: no_labels(logits.detach() + (logits - logits.detach()) * 2, hidden))
        assert not compares.check("replay", "", other).admitted
        assert not compares.check("replay", "", run_with(_usual)).admitted


class TestPerToken:
    """Nobody reads what stands behind the mask while training; whoever asks for outputs may."""

    def _blanked(self, logits: Tensor, hidden: Tensor) -> Any:
        return _usual(logits, hidden.masked_fill(BEHIND[..., None], 0.0))

    def _turned(self, logits: Tensor, hidden: Tensor) -> Any:
        return {"hidden": hidden.transpose(0, 1), "logits": logits}

    def test_they_are_told_by_their_shape(self) -> None:
        assert _comparison(_usual)[0].per_token == {"hidden"}
        assert _comparison(self._turned)[0].per_token == frozenset()  # of which it is not noticed who reads padding
        assert _comparison(_usual, per_token=frozenset())[0].per_token == frozenset()

    def test_padding_does_not_count_where_gradients_are_asked_for(self) -> None:
        compares, run_with = _comparison(_usual)
        assert compares.check("replay", "", run_with(self._blanked)).admitted

    def test_it_counts_with_positions_first(self) -> None:
        compares, run_with = _comparison(self._turned)

        def blanked(logits: Tensor, hidden: Tensor) -> Any:
            return self._turned(logits, hidden.masked_fill(BEHIND[..., None], 0.0))

        def wrong(logits: Tensor, hidden: Tensor) -> Any:
            return self._turned(logits, hidden.masked_fill(~BEHIND[..., None], 0.0))

        assert not compares.check("replay", "", run_with(blanked)).admitted
        assert not compares.check("replay", "", run_with(wrong)).admitted
        assert compares.check("replay", "", run_with(self._turned)).admitted

    def test_it_counts_where_none_are(self) -> None:
        with torch.no_grad():
            compares, run_with = _comparison(_usual)
            assert not compares.check("replay", "", run_with(self._blanked)).admitted
            assert compares.check("replay", "", run_with(_usual)).admitted

    def test_it_counts_in_what_is_not_known_to_be_per_token(self) -> None:
        compares, run_with = _comparison(_usual, per_token=frozenset())
        assert not compares.check("replay", "", run_with(self._blanked)).admitted


class TestTolerance:
    @pytest.mark.parametrize(
        ("dtype", "within", "beyond"),
        [(torch.float32, 5e-6, 5e-5), (torch.float64, 5e-10, 5e-9), (torch.bfloat16, 1e-2, 1e-1)],
    )
    def test_it_is_that_of_the_dtype(self, dtype: torch.dtype, within: float, beyond: float) -> None:
        compares, run_with = _comparison(lambda logits, hidden: logits.double(), dtype=dtype)
        for more, admitted in ((within, True), (beyond, False)):

            def moved(logits: Tensor, hidden: Tensor, more: float = more) -> Tensor:
                return logits.double() + more * logits.abs().max().clamp(min=1)

            assert compares.check("replay", "", run_with(moved)).admitted == admitted

    def test_without_a_word_it_is_that_of_the_parameters(self) -> None:
        assert _comparison(_usual)[0].dtype == torch.float32

    def test_small_gradients_count_relative_to_the_largest(self) -> None:
        assert not _comparison(_usual)[0].agrees(0.0, 2e-4)
        assert _comparison(_usual)[0].agrees(1e-6, 5e-5)
        assert not _comparison(_usual)[0].agrees(2e-5, 0.0)


def test_what_is_said_of_a_path_that_fails() -> None:
    assert failed("replay", NotReplayable("it was refused")).how == "it was refused"
    assert failed("replay", KeyError("x")).how == "its code fails: KeyError: 'x'"
