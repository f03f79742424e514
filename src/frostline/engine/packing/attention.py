"""Attention on the CPU in few passes over its scores, a part of them at a time.

torch has a fast kernel for attention without dropout only. With dropout the scores are scaled, masked, checked and
dropped in a pass each, all of them before the next pass, in bf16 after queries, keys and values were cast to fp32, and
each random number is drawn alone. Here so many scores as a core's cache holds go through all passes at once, and four
random numbers are cut from each one that is drawn, so that the probability is met to 1/65536. Short texts, of which
torch's kernel cuts each head's few scores into blocks, are attended to in the same way without dropout and gradients
too. The formulas are those of Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1, and of Srivastava et
al., "Dropout" (2014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from frostline.compat.tensors import softmax_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    Part = tuple[slice, slice]

_LEVELS = 1 << 16  # of a random number
_PER_DRAW = 4  # so many are cut from 64 bits
# So many scores at once: in fp32, with what is made of them, they fit into 2 MiB.
_SCORES = 1 << 18
# Up to so many positions torch's kernel is the slower one without dropout; measured with heads 32 and 64 wide in fp32.
_SHORT = 48
# Options that say more of how tokens attend than is dealt with here.
_OTHER_OPTIONS = ("position_bias", "cache", "s_aux", "softcap")


def in_parts(function: Callable[..., Any], *, always: bool) -> Callable[..., Any]:
    """Attention as transformers' interface calls it, in few passes where that is faster.

    Args:
        function: Takes module, query, key, value, mask and options, gives output and weights; what is called otherwise.
        always: Whether it need not be faster, as in a trial.
    """

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        dropout = options.get("dropout", 0.0)
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        faster = dropout > 0.0 or (not torch.is_grad_enabled() and key.shape[2] <= _SHORT)
        if (always or faster) and _takes(query, key, value, mask, options, causal=causal):
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
    query, key, value = (heads.contiguous() for heads in (query, key, value))  # so are parts of them, then
    with torch.autocast("cpu", enabled=False):
        output: Tensor = _Attention.apply(query, key, value, mask, scaling, dropout)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2).contiguous()


def kept(shape: tuple[int, ...], dropout: float) -> tuple[Tensor, float]:
    """Which values dropout keeps, as bool, and what these are multiplied by, so that their mean stays."""
    level = round(dropout * _LEVELS)
    count = int(np.prod(shape))
    # numpy draws in half of torch's time; the seed is torch's, so that it decides all the same.
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.Generator(np.random.SFC64(seed)).integers(
        0, (1 << 64) - 1, -(-count // _PER_DRAW), dtype=np.uint64, endpoint=True
    )
    keeps = draws.view(np.uint16)[:count] >= level
    return torch.from_numpy(keeps).view(shape), _LEVELS / (_LEVELS - level)


def split_rows(query: Tensor, key: Tensor) -> Iterator[Part]:
    """The rows and heads of each part: whole rows, or else some heads of one row."""
    rows, heads = query.shape[:2]
    each = max(1, query.shape[2] * key.shape[2])
    by_heads = max(1, min(heads, _SCORES // each))
    by_rows = max(1, _SCORES // (each * heads)) if by_heads == heads else 1
    for row in range(0, rows, by_rows):
        for head in range(0, heads, by_heads):
            yield slice(row, row + by_rows), slice(head, head + by_heads)


def _of(mask: Tensor, part: Part) -> Tensor:
    """What a mask, (rows or 1, heads or 1, ...), says of a part."""
    rows, heads = (own if size > 1 else slice(None) for own, size in zip(part, mask.shape[:2], strict=True))
    return mask[rows, heads]


def _flat(tensor: Tensor, part: Part) -> Tensor:
    """A part of (rows, heads, ...) as (rows x heads, ...): a view, as the tensor is contiguous."""
    return tensor[part].flatten(0, 1)


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, part: Part) -> Tensor:
    """How much each position of a part attends to each, before dropout, (rows x heads, length, length)."""
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = torch.bmm(_flat(query, part), _flat(key, part).transpose(1, 2)).to(exact).mul_(scaling)
    if mask is not None:
        by_row = scores.view(*query[part].shape[:3], -1)
        if mask.dtype == torch.bool:
            # No infinity: a position that attends to nothing, as padding does, has no softmax then. Half of the least
            # number, as scores are added to it; adding is far faster than to fill where a mask says so.
            least = torch.finfo(exact).min / 2
            by_row.add_(torch.zeros_like(own := _of(mask, part), dtype=exact).masked_fill_(~own, least))
        else:
            by_row.add_(_of(mask, part)).clamp_(min=torch.finfo(exact).min)
    return scores.softmax(dim=-1).to(query.dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float
    ) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        remembers = any(ctx.needs_input_grad)
        gain = 1.0
        remembered: list[Tensor | None] = []
        ctx.parts = list(split_rows(query, key))
        for part in ctx.parts:
            weights = _weights(query, key, mask, scaling, part)
            keeps = None
            if dropout > 0.0:
                keeps, gain = kept(weights.shape, dropout)
            dropped = weights if keeps is None else weights * keeps
            torch.bmm(dropped, _flat(value, part), out=_flat(output, part))
            if remembers:
                remembered += (weights, keeps)
        ctx.save_for_backward(query, key, value, mask, *remembered)
        ctx.scaling, ctx.gain = scaling, gain
        return output.mul_(gain) if dropout > 0.0 else output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, *remembered = ctx.saved_tensors
        parts = list(zip(ctx.parts, remembered[::2], remembered[1::2], strict=True))
        gradient = gradients[0].contiguous() * ctx.gain
        if torch.is_grad_enabled():  # create_graph=True: the weights have to be part of the graph
            outputs = []
            for part, _, keeps in parts:
                weights = _weights(query, key, mask, ctx.scaling, part)
                outputs.append(torch.bmm(weights if keeps is None else weights * keeps, _flat(value, part)))
            inputs = (query, key, value)
            wanted = [tensor for tensor, wants in zip(inputs, ctx.needs_input_grad, strict=False) if wants]
            found = iter(torch.autograd.grad(torch.cat(outputs), wanted, gradient.flatten(0, 1), create_graph=True))
            return *(next(found) if wants else None for wants in ctx.needs_input_grad[:3]), None, None, None
        by_query, by_key, by_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        for part, weights, keeps in parts:
            own = _flat(gradient, part)
            dropped = weights if keeps is None else weights * keeps
            torch.bmm(dropped.transpose(1, 2), own, out=_flat(by_value, part))
            by_weights = torch.bmm(own, _flat(value, part).transpose(1, 2))
            if keeps is not None:
                by_weights.mul_(keeps)
            # Of the softmax, in fp32 whatever the dtype.
            by_scores = softmax_gradient(by_weights, weights).mul_(ctx.scaling)
            torch.bmm(by_scores, _flat(key, part), out=_flat(by_query, part))
            torch.bmm(by_scores.transpose(1, 2), _flat(query, part), out=_flat(by_key, part))
        return by_query, by_key, by_value, None, None, None
