"""Reading any checkpoint, a delta included: what it holds, and where each tensor lies."""

from __future__ import annotations

from os import PathLike

import torch

from frostline.checkpoints.delta.delta import OpenedDelta, delta_headers
from frostline.checkpoints.headers import is_delta, weight_headers
from frostline.checkpoints.source import Source, locate
from frostline.checkpoints.tensor_files import Checkpoint


def read_headers(source: Source) -> dict[str, torch.Tensor]:
    """Read what a checkpoint holds.

    Args:
        source: A folder, which may be a delta whose base is in reach, or a hub name: its cached files if it is in the
            cache, else only the headers of its safetensors files are fetched.

    Returns:
        Per name in the checkpoint, a tensor of its shape and dtype on the meta device.

    Raises:
        ModelError: If there are no weights, or they are damaged, unsafe or out of reach.
    """
    if source.folder is not None and is_delta(source.folder):
        return delta_headers(source.folder)
    return weight_headers(source)


def open_checkpoint(name: str | PathLike[str]) -> Checkpoint:
    """Open a checkpoint by its folder, which may be a delta whose base is in reach, or hub name.

    Raises:
        ModelError: If there are no weights, or they are damaged, unsafe or out of reach.
    """
    source = locate(name)
    if source.folder is not None and is_delta(source.folder):
        return Checkpoint(source, source.folder, OpenedDelta(source.folder).tensors, {})
    return Checkpoint.open(name)
