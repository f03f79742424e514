"""Tensors as they were, to compare with and to put back, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

# Whole numbers of the same size, whose equality is the equality of bits (that of floats is not: NaN, and -0 = 0).
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 2**20  # values that are widened to double precision at a time


class TensorCopy:
    """One tensor as it was.

    Args:
        tensor: The tensor, of any shape and dtype.
        copy: Whether to copy its values now. Otherwise they are copied once `save` is called, which whoever
            is about to write into the tensor has to do.

    Attributes:
        tensor: The tensor itself, which keeps its identity.
        written: Whether something wrote into it, as far as `Watch` was in force.
    """

    def __init__(self, tensor: torch.Tensor, *, copy: bool) -> None:
        self.tensor = tensor
        self._data = tensor.data  # where the values were; costs nothing unless the tensor is given others
        self._copy: torch.Tensor | None = None
        self.written = False
        if copy:
            self.save()

    def save(self) -> None:
        """Copy the values, unless that was done."""
        if self._copy is None:
            self._copy = self._data.clone()

    @property
    def before(self) -> torch.Tensor:
        """The values as they were."""
        return self._data if self._copy is None else self._copy

    @property
    def copied(self) -> bool:
        """Whether the values were copied."""
        return self._copy is not None

    @property
    def copied_bytes(self) -> int:
        """Memory that the copy takes, in bytes."""
        return 0 if self._copy is None else self._copy.numel() * self._copy.element_size()

    @property
    def storage(self) -> int:
        """Address of the memory that held the values; 0 where there is none."""
        try:
            return self._data.untyped_storage().data_ptr()
        except (RuntimeError, NotImplementedError):  # kinds of tensors without memory of their own
            return 0

    @property
    def swapped(self) -> bool:
        """Whether the tensor was given other memory, another shape or another dtype."""
        now, then = self.tensor, self._data
        return (now.data_ptr(), now.shape, now.stride(), now.dtype) != (
            then.data_ptr(),
            then.shape,
            then.stride(),
            then.dtype,
        )

    @property
    def moved(self) -> bool:
        """Whether a single bit, the shape or the dtype differs from before."""
        if self._copy is None and not self.swapped:
            return False
        return not same_bits(self.before, self.tensor)

    def restore(self) -> None:
        """Put the values back."""
        if self.swapped:
            self.tensor.data = self._data
        # Only where they differ: a tensor whose elements overlap in memory cannot be written into.
        if self._copy is not None and not same_bits(self._copy, self._data):
            self._data.copy_(self._copy)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value, however deep in mappings and sequences."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(inner)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits; NaN equals itself, and 0 is not -0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.view(_WHOLE[tensor.element_size()])


def squares(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
    """Sums of squares for the relative size of a change.

    Args:
        before: The values as they were.
        after: The values now, of the same shape.

    Returns:
        The sum of squares of the difference, and that of the values before; both computed in double precision
        (single precision on devices without it), a part of the tensor at a time.
    """
    difference, size = 0.0, 0.0
    for then, now in zip(_chunks(before), _chunks(after), strict=True):
        difference += float((now - then).square().sum())
        size += float(then.square().sum())
    return difference, size


def _chunks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    wide = torch.float32 if tensor.device.type == "mps" else torch.float64
    for chunk in torch.split(tensor.reshape(-1), _CHUNK):
        yield chunk.to(wide)
