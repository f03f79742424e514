from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers.modeling_outputs import TokenClassifierOutput

from frostline.engine.behind_mask import PaddingRead, guarded
from tests.engine.answering import assert_plain, engine_of
from tests.engine.stubs import Classifier, padded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MASK = torch.tensor([[True, True, True], [True, False, False]])


def _weight() -> Tensor:
    return torch.linspace(-1, 1, 4).requires_grad_()


def _hidden(weight: Tensor) -> Tensor:
    """(rows, length, width)."""
    values = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return values * weight


REAL: dict[str, Callable[[Tensor], Tensor]] = {
    "real tokens": lambda h: h[MASK].square().sum(),
    "the mean of real tokens": lambda h: ((h * MASK[..., None]).sum(1) / MASK.sum(1, keepdim=True)).square().sum(),
    "the first token": lambda h: h[:, 0].square().sum(),
    "labels that are ignored": lambda h: torch.nn.functional.cross_entropy(
        h.flatten(0, 1), torch.where(MASK, 1, -100).flatten()
    ),
    "padding, of which nothing is learned": lambda h: h[MASK].sum() + h.detach().sum(),
    "padding, times zero": lambda h: h[:, 0].sum() + (h * 0).sum(),
}
PADDING: dict[str, Callable[[Tensor], Tensor]] = {
    "the mean": lambda h: h.mean(1).square().sum(),
    "the largest": lambda h: h.max(1).values.sum(),
    "the last position": lambda h: h[:, -1].sum(),
    "everything a little": lambda h: h[MASK].sum() + 1e-6 * h.sum(),
    "labels of padding": lambda h: torch.nn.functional.cross_entropy(h.flatten(0, 1), torch.ones(6, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", REAL)
def test_a_loss_of_real_tokens_has_the_gradient_that_it_had(name: str) -> None:
    weight = _weight()
    (plain,) = torch.autograd.grad(REAL[name](_hidden(weight)), [weight])
    (own,) = torch.autograd.grad(REAL[name](guarded(_hidden(weight), MASK)), [weight])
    assert torch.equal(own, plain)


@pytest.mark.parametrize("name", PADDING)
def test_a_loss_that_reads_padding_is_told_before_the_model_has_a_gradient(name: str) -> None:
    weight, other = _weight(), torch.ones(4, requires_grad=True)
    hidden = _hidden(weight)
    output = guarded({"logits": (hidden[:, 0] * other).sum(-1), "hidden": hidden}, MASK)
    loss = output["logits"].sum() + PADDING[name](output["hidden"])
    with pytest.raises(PaddingRead, match="reads what stands behind the mask"):
        torch.autograd.backward(loss)
    assert weight.grad is None
    assert other.grad is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda hidden: hidden,
        lambda hidden: (torch.ones(()), hidden),
        lambda hidden: [None, [hidden]],
        lambda hidden: {"a": {"hidden": hidden}},
        lambda hidden: OrderedDict(hidden=hidden),
        lambda hidden: TokenClassifierOutput(logits=hidden),
    ],
)
def test_outputs_in_whatever_holds_them(wrap: Callable[[Tensor], Any]) -> None:
    weight = _weight()
    output = wrap(_hidden(weight))
    own = guarded(output, MASK)
    assert type(own) is type(output)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(own) if isinstance(leaf, torch.Tensor)]
    (hidden,) = (leaf for leaf in leaves if leaf.dim() == 3)
    assert torch.equal(hidden, _hidden(weight))
    with pytest.raises(PaddingRead):
        torch.autograd.backward(hidden.mean())


def test_what_has_no_value_per_token_or_no_gradient_is_left_as_it_is() -> None:
    weight = _weight()
    for leaf in (_hidden(weight)[:, 0], _hidden(weight).detach(), torch.ones(2, 3, dtype=torch.int64), 3, None, "text"):
        assert guarded(leaf, MASK) is leaf


class GivesStates(Classifier):
    """Gives out its last hidden states beside the logits."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden = self.embedded(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        logits = self.classifier(self.pooled(hidden, attention_mask))
        return self.answer(logits, hidden)

    def answer(self, logits: Tensor, hidden: Tensor) -> Any:
        return TokenClassifierOutput(logits=logits, hidden_states=hidden)  # type: ignore[arg-type]


BATCH = padded((7, 5, 3))


class TestInTheEngine:
    def _loss(self, output: Any) -> Tensor:
        loss: Tensor = output.hidden_states.mean(1).square().sum()
        return loss

    def test_the_call_is_taken_back_and_all_of_its_kind_are_plain(self, told: Callable[[], list[str]]) -> None:
        model = GivesStates().train()
        engine = engine_of(model)
        with engine.active(), pytest.raises(PaddingRead) as read:
            torch.autograd.backward(self._loss(model(**BATCH)))
        assert all(parameter.grad is None for parameter in model.parameters())
        engine.take_back(str(read.value))
        for _ in range(2):
            with engine.active():
                own, plain = self._loss(model(**BATCH)), self._loss(GivesStates.forward(model, **BATCH))
            assert torch.equal(own, plain)
        assert told().count("Plain path: the loss reads what stands behind the mask.") == 1
        assert engine.answered == 1

    @pytest.mark.parametrize("form", ["positions first", "an object", "an object in a list"])
    def test_whatever_form_they_are_given_out_in(self, form: str) -> None:
        class Otherwise(GivesStates):
            def answer(self, logits: Tensor, hidden: Tensor) -> Any:
                if form == "positions first":
                    return {"logits": logits, "hidden": hidden.transpose(0, 1)}
                given_out = SimpleNamespace(logits=logits, hidden=hidden)
                return given_out if form == "an object" else [given_out]

        def loss(output: Any) -> Tensor:
            output = output[0] if isinstance(output, list) else output
            hidden = output["hidden"].transpose(0, 1) if isinstance(output, dict) else output.hidden
            return hidden.mean(1).square().sum()  # type: ignore[no-any-return]

        model = Otherwise().train()
        engine, parameters = engine_of(model), list(model.parameters())
        wanted = torch.autograd.grad(loss(model(**BATCH)), parameters, allow_unused=True)
        with engine.active():
            try:
                own = torch.autograd.grad(loss(model(**BATCH)), parameters, allow_unused=True)
            except PaddingRead as read:
                engine.take_back(str(read))
                own = torch.autograd.grad(loss(model(**BATCH)), parameters, allow_unused=True)
        for one, other in zip(own, wanted, strict=True):
            if other is not None:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("lengths", [(3, 3, 3), (6, 2, 4)])
    def test_a_call_that_was_not_the_last(self, lengths: tuple[int, ...]) -> None:
        """A step may call the model more than once, and is taken again once."""

        class Kinds(GivesStates):
            def forward(self, input_ids: Tensor, attention_mask: Tensor, kind: str = "") -> Any:
                return super().forward(input_ids, attention_mask)

        model = Kinds().train()
        engine, other = engine_of(model), padded(lengths) | {"kind": "other"}

        def step() -> None:
            first, second = model(**BATCH), model(**other)
            loss = self._loss(first) + (self._loss(second) if len(set(lengths)) > 1 else second.logits.sum())
            torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)

        with engine.active():
            with pytest.raises(PaddingRead) as read:
                step()
            engine.take_back(str(read.value))
            step()

    def test_random_numbers_are_drawn_anew(self) -> None:
        class Dropping(GivesStates):
            def answer(self, logits: Tensor, hidden: Tensor) -> Any:
                return super().answer(torch.nn.functional.dropout(logits), hidden)

        model = Dropping().train()
        engine = engine_of(model)
        torch.manual_seed(3)
        with engine.active():
            first = model(**BATCH).logits
        engine.take_back("it was wrong")
        with engine.active():
            again = model(**BATCH).logits
        assert torch.equal(first == 0, again == 0)
        torch.testing.assert_close(first, again, rtol=1e-5, atol=1e-6)

    def test_a_loss_of_the_logits_is_none_of_its_concern(self) -> None:
        model = GivesStates().train()
        engine = engine_of(model)
        for batch in (BATCH, padded((6, 2), seed=4)):
            assert_plain(model, engine, batch)
        assert engine.answered == 2

    def test_nothing_to_take_back(self) -> None:
        model = Classifier().train()
        engine = engine_of(model)
        assert_plain(model, engine, BATCH)
        engine.take_back("whatever")
        assert engine.checked is not None
        assert engine.checked.paths.any
