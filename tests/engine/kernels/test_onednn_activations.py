"""Activations within the products that they follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from frostline.engine.interpose import interposed
from frostline.engine.kernels import onednn_activations as fused
from frostline.engine.kernels import onednn_linear as products
from frostline.engine.kernels.onednn_activations import Fusion, find_fusions, operation_of
from frostline.engine.kernels.onednn_linear import Operation
from frostline.engine.selfcheck.admission import admit
from tests.engine.stubs import call_of, padded
from tests.models import tiny

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.skipif(products.gain() == 0.0, reason="torch was built without oneDNN")

VALUES = torch.randn(40, 256, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A feed-forward network."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.activation, self.down = nn.Linear(256, 512), activation, nn.Linear(512, 256)
        self.eval()

    def forward(self, values: Tensor) -> Tensor:
        down: Tensor = self.down(self.activation(self.up(values)))
        return down


def own(block: nn.Module, fusions: tuple[Fusion, ...]) -> Tensor:
    """What a block gives out with its activation within the product."""
    linear = products.forwards([module for module in block.modules() if products.is_linear(module)])
    with interposed(linear | fused.forwards(block, fusions, linear)):
        output: Tensor = block(VALUES)
    return output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gelu", Operation("gelu", "none")),
        ("gelu_new", Operation("gelu", "tanh")),
        ("gelu_pytorch_tanh", Operation("gelu", "tanh")),
        ("relu", Operation("relu")),
        ("silu", Operation("swish")),
        ("tanh", Operation("tanh")),
        ("sigmoid", Operation("sigmoid")),
        ("quick_gelu", None),
        ("mish", None),
    ],
)
def test_activations_are_known_by_their_values(name: str, expected: Operation | None) -> None:
    assert operation_of(ACT2FN[name]) == expected


@pytest.mark.parametrize("module", [nn.Softmax(dim=0), nn.Flatten(0), nn.Bilinear(2, 2, 2), nn.Identity()])
def test_other_modules_are_no_activations(module: nn.Module) -> None:
    assert operation_of(module) is None


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu", "silu"])
def test_a_fused_block_gives_the_same_without_its_activation(name: str) -> None:
    block = Block(ACT2FN[name])
    fusions = find_fusions(block, lambda: block(VALUES))
    assert [(fusion.linear, fusion.activation) for fusion in fusions] == [("up", "activation")]
    with torch.no_grad():
        plain, within = block(VALUES), own(block, fusions)
    torch.testing.assert_close(within, plain, rtol=1e-5, atol=1e-5)


def test_the_activation_itself_does_not_run() -> None:
    block = Block(nn.GELU())
    fusions = find_fusions(block, lambda: block(VALUES))
    with torch.no_grad():
        expected = own(block, fusions)
        block.activation.forward = _fail
        assert torch.equal(own(block, fusions), expected)
    with pytest.raises(AssertionError, match="it ran"):
        own(block, fusions)


def _fail(_: Tensor) -> Tensor:
    raise AssertionError("it ran")


def test_where_a_gradient_is_needed_nothing_is_fused() -> None:
    block = Block(nn.GELU())
    fusions = find_fusions(block, lambda: block(VALUES))
    wanted = list(block.parameters())
    by_own = torch.autograd.grad(own(block, fusions).square().sum(), wanted)
    by_plain = torch.autograd.grad(block(VALUES).square().sum(), wanted)
    for mine, other in zip(by_own, by_plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_what_is_frozen_is_fused_within_a_step() -> None:
    block = Block(nn.GELU())
    block.up.requires_grad_(False)
    fusions = find_fusions(block, lambda: block(VALUES))
    plain = block(VALUES)
    block.activation.forward = _fail
    torch.testing.assert_close(own(block, fusions), plain, rtol=1e-5, atol=1e-5)


def test_a_layer_with_two_activations_is_left_as_it_is() -> None:
    class Twice(Block):
        """Both of them take what one layer gives out."""

        def __init__(self) -> None:
            super().__init__(nn.GELU())
            self.other = nn.ReLU()

        def forward(self, values: Tensor) -> Tensor:
            wide = self.up(values)
            down: Tensor = self.down(self.activation(wide) + self.other(wide))
            return down

    block = Twice()
    assert find_fusions(block, lambda: block(VALUES)) == ()


def test_small_products_are_activated_by_the_model() -> None:
    block = Block(nn.GELU())
    fusions = find_fusions(block, lambda: block(VALUES))
    linear = products.forwards([block.up])
    with torch.no_grad(), interposed(linear | fused.forwards(block, fusions, linear)):
        few = block(VALUES[:2])
    with torch.no_grad():
        torch.testing.assert_close(few, block(VALUES[:2]), rtol=0, atol=0)


def test_the_self_check_admits_what_gives_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "gain", lambda: 2.0)
    model: Any = tiny("bert", hidden_size=128, intermediate_size=512, num_attention_heads=2)
    model.eval()
    found = admit(model, model.forward, call_of(padded((40, 30, 20)))).paths.fusions
    assert {(fusion.linear.rpartition("layer.")[2], fusion.operation.name) for fusion in found} == {
        ("0.intermediate.dense", "gelu"),
        ("1.intermediate.dense", "gelu"),
        ("bert.pooler.dense", "tanh"),
    }
    model.bert.encoder.layer[0].intermediate = Both(model.bert.encoder.layer[0].intermediate)
    assert admit(model, model.forward, call_of(padded((40, 30, 20)))).paths.fusions == ()


class Both(nn.Module):
    """Takes what is not activated as well."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.dense, self.act = inner.dense, inner.intermediate_act_fn

    def forward(self, values: Tensor) -> Tensor:
        wide = self.dense(values)
        both: Tensor = self.act(wide) + wide
        return both
