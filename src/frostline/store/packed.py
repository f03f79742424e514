"""Rows end to end: as tensors for the engine, as bytes for the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from frostline.errors import StoreError
from frostline.store.row_index import Ints
from frostline.store.spec import StreamSpec

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows of one stream end to end.

    Attributes:
        values: Shape (sum of lengths, *shape).
        lengths: Elements per row: shape (rows,), int64, on the CPU.
    """

    values: torch.Tensor
    lengths: torch.Tensor


class StoredStream:
    """A stream and the form in which a store keeps it.

    Args:
        spec: The stream.
        dtype: The dtype that floats are stored in; None keeps them as they are.

    Attributes:
        spec: The stream.
        dtype: The dtype that it is stored in.
        element_bytes: Bytes that one element takes in the store.
    """

    __slots__ = ("dtype", "element_bytes", "spec")

    def __init__(self, spec: StreamSpec, dtype: torch.dtype | None) -> None:
        self.spec = spec
        self.dtype = dtype if dtype is not None and spec.dtype.is_floating_point else spec.dtype
        self.element_bytes = prod(spec.shape) * self.dtype.itemsize

    def encode(self, values: torch.Tensor) -> Bytes:
        """Turn elements into bytes: shape (elements, *shape) to (elements · element_bytes,).

        Raises:
            StoreError: If shape or dtype are not the stream's, or the stored dtype cannot hold a value.
        """
        spec = self.spec
        if values.dtype != spec.dtype or tuple(values.shape[1:]) != spec.shape or not values.ndim:
            raise StoreError(
                f"The stream {spec.name!r} has elements of shape {spec.shape} in {spec.dtype}, "
                f"not {tuple(values.shape[1:])} in {values.dtype}."
            )
        stored = values.detach().to("cpu", self.dtype).contiguous()
        if self.dtype == torch.float16 and spec.dtype != torch.float16:
            self._require_room(values, stored)
        raw: Bytes = stored.reshape(-1).view(torch.uint8).numpy()
        return raw

    def _require_room(self, values: torch.Tensor, stored: torch.Tensor) -> None:
        overflown = stored.isinf() & values.detach().isfinite().to("cpu")
        if overflown.any():
            raise StoreError(
                f"The stream {self.spec.name!r} has values up to {float(values.abs().max()):.3g}, "
                "which float16 cannot hold.\nStore it as bfloat16."
            )

    def gather(self, data: Mapping[int, Bytes], segments: Sequence[int], starts: Ints, lengths: Ints) -> torch.Tensor:
        """Put rows end to end.

        Args:
            data: Per segment, its bytes.
            segments: The segment of each row.
            starts: The first element of each row.
            lengths: Elements per row.

        Returns:
            Shape (sum of lengths, *shape), in the stream's own dtype, on the CPU.
        """
        size = self.element_bytes
        values = torch.empty((int(lengths.sum()), *self.spec.shape), dtype=self.dtype)
        raw = values.view(-1).view(torch.uint8).numpy()
        # The fastest of the ways measured: rows of one element by one indexed copy, longer ones by a copy per row.
        if len(data) == 1 and (lengths == 1).all():
            (only,) = data.values()
            whole = only[: len(only) // size * size].reshape(-1, size)
            np.take(whole, starts, axis=0, out=raw.reshape(-1, size), mode="clip")
        elif len(raw):
            begins = starts * size
            np.concatenate(slices([data[segment] for segment in segments], begins, begins + lengths * size), out=raw)
        return values.to(self.spec.dtype)


def stored_streams(specs: Sequence[StreamSpec], dtype: torch.dtype | None) -> list[StoredStream]:
    """The streams of a store.

    Raises:
        StoreError: If there is none, or two have one name.
    """
    if len({spec.name for spec in specs}) < max(len(specs), 1):
        raise StoreError("A store has one or more streams, each with a name of its own.")
    return [StoredStream(spec, dtype) for spec in specs]


def lengths_of(values: Mapping[str, Packed], streams: Sequence[StoredStream], rows: int) -> Ints:
    """The lengths of packed rows, shape (rows, streams).

    Raises:
        StoreError: If streams, rows and elements do not fit each other.
    """
    names = [stream.spec.name for stream in streams]
    if values.keys() != set(names):
        raise StoreError(f"A store of the streams {names} got {list(values)}.")
    lengths = np.empty((rows, len(names)), dtype=np.int64)
    for column, name in enumerate(names):
        packed = values[name]
        if packed.lengths.shape != (rows,):
            raise StoreError(f"The stream {name!r} has {packed.lengths.numel()} rows for {rows} digests.")
        lengths[:, column] = packed.lengths.numpy()
        if len(packed.values) != lengths[:, column].sum() or (lengths[:, column] < 0).any():
            raise StoreError(f"The stream {name!r} has {len(packed.values)} elements, not what its lengths say.")
    return lengths


def slices(raw: Sequence[Bytes], begins: Ints, ends: Ints) -> list[Bytes]:
    """The piece of ``raw[i]`` from ``begins[i]`` to ``ends[i]``, for each i."""
    return [source[begin:end] for source, begin, end in zip(raw, begins.tolist(), ends.tolist(), strict=True)]


def select_rows(raw: Bytes, lengths: Ints, rows: Sequence[int], element_bytes: int) -> Bytes:
    """Keep some rows of packed bytes, in the order given.

    Args:
        raw: The bytes of all rows.
        lengths: Elements per row.
        rows: The rows to keep.
        element_bytes: Bytes per element.
    """
    ends = np.cumsum(lengths) * element_bytes
    chosen: Ints = np.asarray(rows, dtype=np.int64)
    begins = ends[chosen] - lengths[chosen] * element_bytes
    return np.concatenate(slices([raw] * len(rows), begins, ends[chosen]))
