"""Comparing two stored tensors, piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from frostline.checkpoints.tensor_files import PIECE, StoredTensor

Likeness = Literal["identical", "cast", "changed"]


@dataclass(frozen=True, slots=True)
class Change:
    """How far two tensors are apart; sums in fp64.

    Attributes:
        max_abs: Largest absolute difference of two elements; not a number where an element is not.
        difference: Sum of the squared differences.
        base: Sum of the squared elements of the base.
        tuned: Likewise, of the tuned.
        product: Sum of the products of both.
    """

    max_abs: float = 0.0
    difference: float = 0.0
    base: float = 0.0
    tuned: float = 0.0
    product: float = 0.0

    def __add__(self, other: Change) -> Change:
        worst = math.nan if math.isnan(self.max_abs + other.max_abs) else max(self.max_abs, other.max_abs)
        return Change(
            worst,
            self.difference + other.difference,
            self.base + other.base,
            self.tuned + other.tuned,
            self.product + other.product,
        )

    @property
    def relative_l2(self) -> float | None:
        """Norm of the difference over that of the base; None where the base is all zero."""
        return math.sqrt(self.difference / self.base) if self.base else None

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between both; None where one of them is all zero."""
        norms = math.sqrt(self.base) * math.sqrt(self.tuned)
        if not norms:
            return None
        cosine = self.product / norms
        return cosine if math.isnan(cosine) else max(-1.0, min(1.0, cosine))


def same_bits(base: StoredTensor, tuned: StoredTensor, elements: int | None = None) -> bool:
    """Whether two tensors of one dtype agree bit by bit in their first elements; None for all."""
    pairs = zip(base.pieces(elements), tuned.pieces(elements), strict=True)
    return all(torch.equal(one.view(torch.uint8), other.view(torch.uint8)) for one, other in pairs)


def same_values(base: StoredTensor, tuned: StoredTensor) -> bool:
    """Whether a tensor of the base, or its cast to another floating-point dtype, is the tuned one bit by bit."""
    if base.shape != tuned.shape:
        return False
    floats = base.dtype.is_floating_point and tuned.dtype.is_floating_point
    return (base.dtype == tuned.dtype or floats) and same_bits(base.cast(tuned.dtype), tuned)


def liken(base: StoredTensor, tuned: StoredTensor, elements: int) -> tuple[Likeness, Change]:
    """Compare the first elements of two tensors.

    Returns:
        ``identical``: of one dtype, and equal bit by bit. ``cast``: of two dtypes, and casting the base to the
        tuned one's dtype gives the tuned bit by bit. ``changed``: anything else. And the change, which is measured
        where they are not identical.
    """
    if base.dtype == tuned.dtype and same_bits(base, tuned, elements):
        return "identical", Change()
    is_cast = base.dtype != tuned.dtype and base.dtype.is_complex == tuned.dtype.is_complex
    change = Change()
    for start in range(0, elements, PIECE):
        stop = min(start + PIECE, elements)
        one, other = base.read(start, stop), tuned.read(start, stop)
        is_cast = is_cast and _same(one.to(tuned.dtype), other)
        change += _change(one, other)
    return ("cast" if is_cast else "changed"), change


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def _change(one: torch.Tensor, other: torch.Tensor) -> Change:
    wide = torch.complex128 if one.is_complex() or other.is_complex() else torch.float64
    base, tuned = one.to(wide), other.to(wide)
    product, first, second = torch.vdot(base, tuned).real, torch.vdot(base, base).real, torch.vdot(tuned, tuned).real
    difference = (tuned - base).abs()
    return Change(
        float(difference.max()), float(torch.dot(difference, difference)), float(first), float(second), float(product)
    )
