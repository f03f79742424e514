"""The matrix products of linear layers by oneDNN, where it is faster than the BLAS that torch calls.

On the CPU torch hands products in single precision to the BLAS that it was built with. Where that is one that does not
use the processor's widest instructions (MKL on processors of other makers), oneDNN, which torch has on board as well,
is up to twice as fast. Both compute in IEEE single precision; their sums differ in order only.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from frostline.compat.tensors import linear_by_onednn, made_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from frostline.engine.interpose import Forward

# Below so many multiplications a call of oneDNN costs more than it saves.
_SMALLEST = 1 << 22
# By so much it has to be faster, so that noise does not decide.
_FASTER = 1.15
_SHAPE = (256, 768, 768)  # of the product that is timed: tokens, in, out
_REPEATS = 5


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, and nothing more."""
    # Conv1D is GPT-2's name for a linear layer that keeps its weight turned.
    return type(module) in {nn.Linear, Conv1D}


def forwards(layers: Iterable[nn.Module]) -> dict[nn.Module, Forward]:
    """Forwards by oneDNN for linear layers."""
    return {layer: _forward(layer) for layer in layers}


def gain() -> float:
    """How many times as fast oneDNN is on this machine, measured once per number of threads; 0 where it is missing."""
    return _gain(torch.get_num_threads())


@cache
def _gain(_threads: int) -> float:
    if linear_by_onednn() is None:
        return 0.0
    tokens, inner, outer = _SHAPE
    values, weight = torch.ones(tokens, inner), torch.ones(outer, inner)
    with torch.no_grad():
        try:
            own = _seconds(lambda: product(values, weight, None))
        except RuntimeError:  # built without it for this processor
            return 0.0
        return _seconds(lambda: nn.functional.linear(values, weight)) / own


def is_faster(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of such tensors are worth being handed to oneDNN."""
    return device.type == "cpu" and dtype == torch.float32 and gain() >= _FASTER


def _seconds(run: Callable[[], Any]) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply (..., in) by (out, in), each of any strides, to (..., out)."""
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # oneDNN has no fast product for rows that lie apart, as those of the first tokens
    linear = cast("Callable[..., Tensor]", linear_by_onednn())
    return linear(values, weight, bias, "none", [], "")  # no activation follows within the product


def _parameters_of(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight of a linear layer, (out, in), and its bias."""
    weight, bias = cast("Tensor", layer.weight), cast("Tensor | None", layer.bias)
    return weight.t() if type(layer) is Conv1D else weight, bias


def _takes(values: Tensor, weight: Tensor) -> bool:
    """Whether a product is in single precision, and large enough for oneDNN."""
    return (
        values.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and values.numel() * weight.numel() >= _SMALLEST * values.shape[-1]
    )


def _needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether what is computed from some tensors is part of a graph."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.has_bias = bias is not None
        return product(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        wants_values, wants_weight, wants_bias = ctx.needs_input_grad
        gradient = gradients[0].reshape(-1, weight.shape[0])
        # With create_graph=True, torch's own product, which can be differentiated once more.
        multiply = torch.nn.functional.linear if torch.is_grad_enabled() else product
        into = multiply(gradient, weight.t(), None).view(values.shape) if wants_values else None
        by_weight = None
        if wants_weight:
            by_weight = multiply(gradient.t(), values.reshape(-1, weight.shape[1]).t(), None)
        by_bias = gradient.sum(dim=0) if ctx.has_bias and wants_bias else None
        return into, by_weight, by_bias


def is_product(node: Any) -> bool:
    """Whether a node of the graph of autograd stands for a linear layer by oneDNN; its first saved tensor went in."""
    return made_by(node) is _Linear


def _forward(layer: nn.Module) -> Forward:
    original = layer.forward

    def forward(values: Tensor) -> Tensor:
        weight, bias = _parameters_of(layer)
        if not _takes(values, weight):
            return cast("Tensor", original(values))
        if _needs_gradient(values, weight, bias):
            return cast("Tensor", _Linear.apply(values, weight, bias))  # type: ignore[no-untyped-call]
        return product(values, weight, bias)

    return forward
