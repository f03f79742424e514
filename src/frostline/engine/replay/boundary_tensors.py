"""What is stored of the tensors that cross the frost line, and how a batch's are put together from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from frostline.engine.packing.last_layer import places_of
from frostline.engine.replay.replay import NotReplayable
from frostline.store.packed import Packed
from frostline.store.spec import StreamSpec

if TYPE_CHECKING:
    from torch import Tensor

    from frostline.engine.fast_paths import FastPaths
    from frostline.engine.replay.replay import Stream
    from frostline.engine.token_layout import TokenLayout


def spec_of(stream: Stream, paths: FastPaths) -> StreamSpec:
    """What the store has to know of a stream."""
    shape = stream.shape[1:] if paths.whole and stream.token_axis is None else stream.shape
    return StreamSpec(stream.name, shape, stream.dtype)


def to_store(stream: Stream, value: Tensor, rows: TokenLayout, paths: FastPaths) -> Packed:
    """What is stored of one batch's tensor.

    Args:
        stream: The stream.
        value: Its tensor as it crosses the frost line, or packed: (1, slots, ...).
        rows: The layout of the batch.
        paths: How the model is run.

    Raises:
        NotReplayable: If the tensor has another shape than it had when the stream was found.
    """
    packed = stream.is_plain and value.shape[:2] == (1, rows.slots) and value.shape[:2] != (rows.count, rows.length)
    if packed and stream.name not in paths.stored_positions and not paths.whole:
        return Packed(rows.cut(value.squeeze(0)), rows.lengths.cpu())
    value = rows.pad(rows.cut(value.squeeze(0))) if packed else stream.rows_first(value)
    axes = 1 if stream.token_axis is None else 2
    if value.shape[0] != rows.count or (not paths.whole and tuple(value.shape[axes:]) != stream.shape):
        raise NotReplayable(f"{stream.name} has another shape in every batch")
    if stream.name in paths.stored_positions:
        if value.shape[1] != rows.length:
            raise NotReplayable(f"{stream.name} has another length than it had")
        places = places_of(paths.stored_positions[stream.name], rows)
        return _one_each(value[torch.arange(rows.count, device=value.device), places])
    if paths.whole and value.dim() > 1:
        return Packed(value.flatten(0, 1), torch.full((rows.count,), value.shape[1]))
    if stream.token_axis is None:
        return _one_each(value)
    if value.shape[1] != rows.length:
        raise NotReplayable(f"{stream.name} has another length than the text")
    return Packed(rows.pack(value), rows.lengths.cpu())


def from_store(stream: Stream, packed: Packed, rows: TokenLayout, paths: FastPaths, *, packs: bool) -> Tensor:
    """The tensor of a batch, as it crosses the frost line.

    Args:
        stream: The stream.
        packed: What is stored of the batch's rows.
        rows: The layout of the batch.
        paths: How the model is run.
        packs: Whether it is taken by a layer that runs packed.

    Raises:
        NotReplayable: If rows that are stored with their padding do not fit together.
    """
    values = packed.values
    if stream.name in paths.stored_positions:
        # At every position, as one of them only is read: a view takes no memory.
        return stream.as_taken(values.unsqueeze(1).expand(rows.count, rows.length, *stream.shape))
    if paths.whole and (stream.shape or stream.token_axis is not None):
        if bool((packed.lengths != packed.lengths[0]).any()):
            raise NotReplayable("rows with different padding do not fit together")
        return stream.as_taken(values.view(rows.count, -1, *values.shape[1:]))
    if stream.token_axis is None:
        return stream.as_taken(values)
    if packs and stream.is_plain:
        return rows.fill(values).unsqueeze(0)
    return stream.as_taken(rows.pad(values))


def _one_each(values: Tensor) -> Packed:
    return Packed(values, torch.ones(len(values), dtype=torch.int64))
