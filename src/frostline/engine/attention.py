"""Attention with dropout on the CPU, in few passes over its scores.

torch has a fast kernel for attention without dropout only. With it, the scores are scaled, masked, checked and dropped
in a pass each, in bf16 after queries, keys and values were cast to fp32, and each random number is drawn alone. Here
four are cut from each one that is drawn, so that the probability is met to 1/65536. The formulas are those of Vaswani
et al., "Attention Is All You Need" (2017), section 3.2.1, and of Srivastava et al., "Dropout" (2014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

_LEVELS = 1 << 16  # of a random number
_PER_DRAW = 4  # so many are cut from 64 bits
# Options that say more of how tokens attend than is dealt with here.
_OTHER_OPTIONS = ("position_bias", "cache", "s_aux", "softcap")


def with_dropout(function: Callable[..., Any], *, always: bool) -> Callable[..., Any]:
    """Attention as transformers' interface calls it, in few passes where dropout is on.

    Args:
        function: Takes module, query, key, value, mask and options, gives output and weights; what is called otherwise.
        always: Whether dropout need not be on, as in a trial.
    """

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        dropout = options.get("dropout", 0.0)
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if (always or dropout > 0.0) and _takes(query, key, value, mask, options, causal=causal):
            return _attend(query, key, value, mask, options.get("scaling"), dropout), None
        return function(module, query, key, value, mask, **options)

    return attend


def _takes(query: Tensor, key: Tensor, value: Tensor, mask: Any, options: Mapping[str, Any], *, causal: bool) -> bool:
    told = not causal if mask is None else isinstance(mask, torch.Tensor) and mask.dim() == query.dim()
    learned = isinstance(mask, torch.Tensor) and mask.requires_grad  # as a bias of positions is
    return (
        told
        and not learned
        and options.get("dropout", 0.0) < 1.0
        and query.device.type == "cpu"
        and torch.is_grad_enabled()
        and query.shape[:2] == key.shape[:2] == value.shape[:2]  # no keys that several heads share
        and all(options.get(name) is None for name in _OTHER_OPTIONS)
    )


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, dropout: float
) -> Tensor:
    """From (rows, heads, length, width) to (rows, length, heads, width)."""
    if torch.is_autocast_enabled("cpu"):  # it casts what attention is given
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        output: Tensor = _Attention.apply(query, key, value, mask, scaling, dropout)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2).contiguous()


def kept(like: Tensor, dropout: float) -> Tensor:
    """What values are multiplied by in dropout: 0 with its probability, else what keeps their mean."""
    level = round(dropout * _LEVELS)
    drawn = torch.empty(-(-like.numel() // _PER_DRAW), dtype=torch.int64).random_(-(1 << 63), None)
    numbers = drawn.view(torch.int16)[: like.numel()].view(like.shape)
    return (numbers >= level - _LEVELS // 2).to(like.dtype).mul_(_LEVELS / (_LEVELS - level))


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """How much each position attends to each, before dropout, (rows, heads, length, length)."""
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = torch.matmul(query, key.transpose(-1, -2)).to(exact).mul_(scaling)
    if mask is not None and mask.dtype == torch.bool:
        # No infinity: a position that attends to nothing, as padding does, has no softmax then.
        scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores.add_(mask).clamp_(min=torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).to(query.dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float
    ) -> Tensor:
        weights = _weights(query, key, mask, scaling)
        factors = kept(weights, dropout) if dropout > 0.0 else None
        ctx.save_for_backward(query, key, value, mask, weights, factors)
        ctx.scaling = scaling
        return torch.matmul(weights if factors is None else weights * factors, value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, weights, factors = ctx.saved_tensors
        gradient = gradients[0]
        if torch.is_grad_enabled():  # create_graph=True: the weights have to be part of the graph
            weights = _weights(query, key, mask, ctx.scaling)
            output = torch.matmul(weights if factors is None else weights * factors, value)
            inputs = (query, key, value)
            wanted = [tensor for tensor, wants in zip(inputs, ctx.needs_input_grad, strict=False) if wants]
            found = iter(torch.autograd.grad(output, wanted, gradient, create_graph=True))
            return *(next(found) if wants else None for wants in ctx.needs_input_grad[:3]), None, None, None
        dropped = weights if factors is None else weights * factors
        by_value = torch.matmul(dropped.transpose(-1, -2), gradient)
        by_weights = torch.matmul(gradient, value.transpose(-1, -2))
        if factors is not None:
            by_weights.mul_(factors)
        # Of the softmax, in fp32 whatever the dtype.
        by_scores = torch._softmax_backward_data(by_weights, weights, -1, weights.dtype).mul_(ctx.scaling)  # noqa: SLF001
        by_key = torch.matmul(by_scores.transpose(-1, -2), query)
        return torch.matmul(by_scores, key), by_key, by_value, None, None, None
