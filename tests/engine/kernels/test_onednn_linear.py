"""Linear layers by oneDNN against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from frostline.engine.interpose import interposed
from frostline.engine.kernels import onednn_linear as products

pytestmark = pytest.mark.skipif(products.gain() == 0.0, reason="torch was built without oneDNN")


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    turned: nn.Module = Conv1D(512, 256)  # type: ignore[no-untyped-call]
    return [nn.Linear(256, 512), nn.Linear(256, 512, bias=False), turned]


@pytest.mark.parametrize("layer", layers(), ids=["linear", "without bias", "turned"])
@pytest.mark.parametrize("shape", [(40, 256), (3, 20, 256)], ids=["two axes", "three axes"])
def test_values_and_gradients_are_those_of_the_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(*shape[:-1], 512, generator=torch.Generator().manual_seed(2))
    wanted = [values, *layer.parameters()]
    plain = layer(values)
    by_plain = torch.autograd.grad((plain * weights).sum(), wanted)
    with interposed(products.forwards([layer])):
        own = layer(values)
    assert type(own.grad_fn).__name__ == "_LinearBackward"
    by_own = torch.autograd.grad((own * weights).sum(), wanted)
    torch.testing.assert_close(own, plain, rtol=1e-5, atol=1e-5)
    for mine, other in zip(by_own, by_plain, strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_second_derivatives() -> None:
    layer = layers()[0]
    values = torch.randn(40, 256, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def penalty() -> tuple[torch.Tensor, ...]:
        (first,) = torch.autograd.grad(layer(values).pow(3).sum(), values, create_graph=True)
        return torch.autograd.grad(first.square().mean(), [values, *layer.parameters()])

    plain = penalty()
    with interposed(products.forwards([layer])):
        own = penalty()
    for mine, other in zip(own, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_a_frozen_weight_gets_no_gradient() -> None:
    layer = layers()[0].requires_grad_(False)
    values = torch.ones(40, 256, requires_grad=True)
    with interposed(products.forwards([layer])):
        layer(values).sum().backward()
    assert values.grad is not None
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_small_products_and_other_precisions_are_left_to_torch() -> None:
    layer = layers()[0]
    with interposed(products.forwards([layer])):
        assert type(layer(torch.ones(2, 256)).grad_fn).__name__ == "AddmmBackward0"
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.ones(40, 256)).dtype == torch.bfloat16


def test_classes_of_ones_own_keep_their_forward() -> None:
    class Mine(nn.Linear):
        """Has a forward of its own, perhaps."""

    assert [products.is_linear(module) for module in (Mine(256, 512), nn.ReLU(), nn.Linear(1, 1))] == [0, 0, 1]


def test_only_the_cpu_and_single_precision_are_asked_for() -> None:
    assert not products.is_faster(torch.device("cuda"), torch.float32)
    assert not products.is_faster(torch.device("cpu"), torch.bfloat16)
