"""Where the real tokens of a batch stand, and moving values between padded and packed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Packed tokens are counted in steps of at least so many, and of this share of the power of two beneath their number.
_LEAST_STEP, _STEPS = 16, 8


class _Scatter(torch.autograd.Function):
    """Rows put at places of a larger tensor of zeros; its gradient is those rows of the gradient."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return packed.new_zeros(size, *packed.shape[1:]).index_copy_(0, places, packed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """Rows at different places of a tensor; its gradient is zeros with those rows put back."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = padded.shape[0]
        return padded.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        whole = gradient.new_zeros(ctx.size, *gradient.shape[1:])
        return whole.index_copy_(0, ctx.saved_tensors[0], gradient), None


def slots_for(tokens: int) -> int:
    """How many tokens layers that run packed are given for so many real ones: one of few numbers; see `slots`."""
    step = _step(tokens)
    return -(-tokens // step) * step


def _step(tokens: int) -> int:
    return max(_LEAST_STEP, (1 << tokens.bit_length()) // 2 // _STEPS)


def scatter(packed: Tensor, places: Tensor, size: int) -> Tensor:
    """Put (n, ...) at n different places of zeros, (size, ...), differentiably."""
    return _Scatter.apply(packed, places, size)  # type: ignore[no-untyped-call, no-any-return]


def gather(padded: Tensor, places: Tensor) -> Tensor:
    """Take (n, ...) from n different places of (size, ...), differentiably."""
    return _Gather.apply(padded, places)  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True)
class TokenLayout:
    """The layout of one batch.

    Attributes:
        mask: Which positions hold real tokens, bool, (rows, length).
    """

    mask: Tensor

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.mask.shape[0]

    @property
    def length(self) -> int:
        """How many positions a padded row has."""
        return self.mask.shape[1]

    @cached_property
    def places(self) -> Tensor:
        """Flat places of the real tokens, int64, (tokens,)."""
        return self.mask.reshape(-1).nonzero().reshape(-1)

    @cached_property
    def lengths(self) -> Tensor:
        """Real tokens per row, int64, (rows,)."""
        return self.mask.sum(dim=1)

    @property
    def tokens(self) -> int:
        """How many real tokens the batch has."""
        return self.places.shape[0]

    @property
    def slots(self) -> int:
        """How many tokens layers that run packed are given: the last real one stands there some times more.

        Each number of tokens is a product of another shape, which oneDNN prepares anew and keeps: half a megabyte for
        each weight and direction. So there are at most 8 numbers between one power of two and the next, for which 4 %
        more tokens are computed on average.
        """
        slots = slots_for(self.tokens)
        # One row alone must not look padded when it is packed.
        return slots + _step(self.tokens) if slots == self.length != self.tokens else slots

    def fill(self, packed: Tensor) -> Tensor:
        """(tokens, ...) to (slots, ...)."""
        # No zeros: at them a root or a norm has no gradient, which a trial without spare slots would not show.
        spare = packed[-1:].detach().expand(self.slots - self.tokens, *packed.shape[1:])
        return torch.cat([packed, spare])

    def cut(self, filled: Tensor) -> Tensor:
        """(slots, ...) to (tokens, ...)."""
        return filled[: self.tokens]

    @property
    def full(self) -> bool:
        """Whether there is no padding."""
        return self.tokens == self.mask.numel()

    def pack(self, padded: Tensor) -> Tensor:
        """(rows, length, ...) to (tokens, ...), differentiably."""
        return gather(padded.flatten(0, 1), self.places)

    def pad(self, packed: Tensor) -> Tensor:
        """(tokens, ...) to (rows, length, ...) with zeros as padding, differentiably."""
        flat = scatter(packed, self.places, self.mask.numel())
        return flat.view(self.count, self.length, *flat.shape[1:])
