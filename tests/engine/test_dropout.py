from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional

from frostline.engine.dropout import NoDropout, is_dropout_off
from frostline.engine.interpose import interposed
from frostline.engine.packing.packing import Packing
from frostline.engine.token_layout import TokenLayout
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ONES = torch.ones(4, 6, 8, 8)
P = 0.5

# By place, and by name, as callers do.
FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "dropout": functional.dropout,
    "dropout, by place": lambda x: functional.dropout(x, P, True),
    "dropout, by name": lambda x: functional.dropout(input=x, p=P, training=True),
    "dropout, in place": lambda x: functional.dropout(x.clone(), P, True, True),
    "dropout1d": lambda x: functional.dropout1d(x[0], P),
    "dropout2d": lambda x: functional.dropout2d(x, p=P),
    "dropout3d": lambda x: functional.dropout3d(x, P),
    "alpha_dropout": lambda x: functional.alpha_dropout(x, P, training=True),
    "feature_alpha_dropout": lambda x: functional.feature_alpha_dropout(x, P, training=True),
    "torch.dropout": lambda x: torch.dropout(x, P, True),
    "torch.dropout, by name": lambda x: torch.dropout(x, p=P, train=True),
    "torch.dropout_": lambda x: torch.dropout_(x.clone(), P, True),
    "torch.native_dropout": lambda x: torch.native_dropout(x, P, True)[0],
    "torch.native_dropout, its mask": lambda x: torch.native_dropout(x, p=P, train=True)[1].float(),
    "torch.alpha_dropout": lambda x: torch.alpha_dropout(x, P, True),
    "torch.alpha_dropout_": lambda x: torch.alpha_dropout_(x.clone(), P, True),
    "torch.feature_dropout": lambda x: torch.feature_dropout(x, P, True),
    "torch.feature_dropout_": lambda x: torch.feature_dropout_(x.clone(), P, True),
    "torch.feature_alpha_dropout": lambda x: torch.feature_alpha_dropout(x, P, True),
    "torch.feature_alpha_dropout_": lambda x: torch.feature_alpha_dropout_(x.clone(), P, True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function = FUNCTIONS[name]
    with NoDropout():
        kept = function(ONES)
    assert torch.equal(kept, torch.ones_like(kept))
    torch.manual_seed(0)
    assert not torch.equal(function(ONES), kept)


def test_no_function_of_torch_was_forgotten() -> None:
    """Whatever it calls so is tried above; a newer torch may have more."""
    tried = {name.partition(",")[0] for name in FUNCTIONS}
    there = {name for name in dir(functional) if "dropout" in name}
    there |= {f"torch.{name}" for name in dir(torch) if "dropout" in name and not name.startswith("_")}
    assert there == tried
    with_rates = {name for name in dir(functional) if "dropout_p" in _names(getattr(functional, name))}
    assert with_rates == {"multi_head_attention_forward"}  # which a module below calls


def _names(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


@pytest.mark.parametrize(
    "module",
    [
        nn.Dropout(P),
        nn.Dropout(P, inplace=True),
        nn.Dropout2d(P),
        nn.Dropout3d(P),
        nn.AlphaDropout(P),
        nn.FeatureAlphaDropout(P),
        nn.Sequential(nn.Identity(), nn.Sequential(nn.Dropout(P))),
    ],
    ids=lambda module: str(module).partition("(")[0],
)
def test_modules(module: nn.Module) -> None:
    with NoDropout():
        assert torch.equal(module.train()(ONES.clone()), ONES)
    assert not torch.equal(module(ONES.clone()), ONES)


def test_a_module_of_channels() -> None:
    with NoDropout():
        assert torch.equal(nn.Dropout1d(P)(ONES[0]), ONES[0])


def _attend(module: nn.Module) -> Callable[[], Tensor]:
    hidden = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    if isinstance(module, nn.MultiheadAttention):
        return lambda: cast("Tensor", module(hidden, hidden, hidden, need_weights=False)[0])
    if isinstance(module, nn.TransformerDecoderLayer):
        return lambda: cast("Tensor", module(hidden, hidden))
    return lambda: cast("Tensor", module(hidden))


@pytest.mark.parametrize(
    "kind",
    [nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer],
    ids=lambda kind: kind.__name__,
)
def test_modules_that_attend(kind: Any) -> None:
    torch.manual_seed(0)
    module = kind(8, 2, dropout=P, batch_first=True)
    run = _attend(module.train())
    with NoDropout():
        kept = run()
    assert not torch.allclose(run(), kept)
    torch.testing.assert_close(kept, _without(module, run), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("packed", [False, True])
def test_modules_that_recur(kind: Any, packed: bool) -> None:
    torch.manual_seed(0)
    module = kind(8, 8, num_layers=2, dropout=P, batch_first=True)
    hidden: Any = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    if packed:
        hidden = nn.utils.rnn.pack_padded_sequence(hidden, torch.tensor([5, 3, 2]), batch_first=True)

    def run() -> Tensor:
        output = module(hidden)[0]
        return cast("Tensor", output.data if packed else output)

    with NoDropout():
        kept = run()
    assert not torch.allclose(run(), kept)
    torch.testing.assert_close(kept, _without(module, run), rtol=1e-5, atol=1e-6)


def test_attention_that_gives_out_its_weights() -> None:
    torch.manual_seed(0)
    module, hidden = nn.MultiheadAttention(8, 2, dropout=P, batch_first=True), torch.ones(3, 5, 8)
    with NoDropout():
        weights = module(hidden, hidden, hidden)[1]
    torch.testing.assert_close(weights, torch.full((3, 5, 5), 0.2))
    assert not torch.allclose(module(hidden, hidden, hidden)[1], weights)


@pytest.mark.parametrize("by_name", [True, False])
def test_scaled_dot_products(by_name: bool) -> None:
    heads = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0))

    def run(p: float) -> Tensor:
        attend = functional.scaled_dot_product_attention
        return attend(heads, heads, heads, dropout_p=p) if by_name else attend(heads, heads, heads, None, p)

    with NoDropout():
        kept = run(P)
    torch.testing.assert_close(kept, run(0.0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(run(P), kept)


def _without(module: nn.Module, run: Callable[[], Tensor]) -> Tensor:
    """What a module gives in train mode with no dropout in it."""
    for inner in module.modules():
        for name in ("p", "dropout"):
            if isinstance(getattr(inner, name, None), float):
                setattr(inner, name, 0.0)
    return run()


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        *(("bert", own) for own in ("eager", "sdpa")),
        *(("gpt2", own) for own in ("eager", "sdpa")),
        *(("t5", own) for own in ("eager", "sdpa")),
        ("deberta-v2", "eager"),
    ],
)
def test_models_of_transformers(kind: str, attention: str) -> None:
    rates: dict[str, Any] = {
        "hidden_dropout_prob": P,
        "attention_probs_dropout_prob": P,
        "dropout_rate": P,
        "attn_pdrop": P,
    }
    try:
        model = tiny(kind, **rates, attn_implementation=attention)
    except ValueError as error:  # so say versions in which its own code has no other attention
        pytest.skip(str(error))
    model.config.decoder_start_token_id = 0
    ids = torch.randint(3, 50, (3, 6), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = model.config.eos_token_id or 2

    def run() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(input_ids=ids).logits
        return logits

    with NoDropout():
        kept = run()
    assert not torch.allclose(run(), kept)
    model.train(mode=False)
    torch.testing.assert_close(kept, run(), rtol=1e-5, atol=1e-6)


class TestInForce:
    def test_it_ends_with_its_block(self) -> None:
        assert not is_dropout_off()
        with NoDropout():
            assert is_dropout_off()
            with NoDropout():
                assert torch.equal(functional.dropout(ONES, P), ONES)
            assert is_dropout_off()
            assert torch.equal(functional.dropout(ONES, P), ONES)
        assert not is_dropout_off()
        assert not torch.equal(functional.dropout(ONES, P), ONES)

    def test_it_ends_with_an_error(self) -> None:
        with pytest.raises(ValueError, match="broken"), NoDropout():
            raise ValueError("broken")
        assert not is_dropout_off()
        assert not torch.equal(functional.dropout(ONES, P), ONES)

    def test_one_of_them_may_be_entered_twice(self) -> None:
        mode = NoDropout()
        with mode:
            pass
        with mode, mode:
            assert torch.equal(functional.dropout(ONES, P), ONES)
        assert not is_dropout_off()

    def test_other_random_numbers_are_drawn_as_before(self) -> None:
        drawn = []
        for mode in (NoDropout(), torch.enable_grad()):
            torch.manual_seed(0)
            with mode:
                drawn.append([torch.rand(3), torch.randn(3), torch.bernoulli(torch.full((3,), P)), torch.randperm(5)])
        assert all(torch.equal(*pair) for pair in zip(*drawn, strict=True))

    def test_gradients_flow_as_without_it(self) -> None:
        weight = torch.ones(5, requires_grad=True)
        with NoDropout():
            (gradient,) = torch.autograd.grad((functional.dropout(weight, P) * torch.arange(5)).sum(), [weight])
        assert gradient.tolist() == [0, 1, 2, 3, 4]

    def test_modules_keep_their_rates(self) -> None:
        module = nn.Dropout(P)
        with NoDropout():
            module(ONES)
        assert module.p == P
        assert module.training


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_our_own_attention_of_packed_tokens(kind: str) -> None:
    """It draws what to drop in its own way, which no function mode sees."""
    model = tiny(kind, attention_probs_dropout_prob=P, hidden_dropout_prob=0.0, attn_pdrop=P, resid_pdrop=0.0)
    layer = model.get_submodule("bert.encoder.layer.0" if kind == "bert" else "transformer.h.0").train()
    rows = TokenLayout(torch.arange(6) < torch.tensor([6, 3, 4])[:, None])
    hidden = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(0))
    mask = (rows.mask[:, None, None, :] & torch.ones(6, 6, dtype=torch.bool).tril()).expand(3, 1, 6, 6)

    def run() -> Tensor:
        packing = Packing(rows, "attention")
        with packing.attending(), interposed(packing.forwards([layer], 0)), torch.no_grad():
            output = layer(hidden, attention_mask=mask)
        return cast("Tensor", (output[0] if isinstance(output, tuple) else output)[rows.mask])

    with NoDropout():
        kept = run()
    assert not torch.allclose(run(), kept)
    layer.eval()
    torch.testing.assert_close(kept, run(), rtol=1e-5, atol=1e-6)
