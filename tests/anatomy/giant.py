"""Folders of huge checkpoints that take no room: true headers, and holes where the weights would be."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> int:
    """Write safetensors files with an index; their bodies are holes in the file.

    Args:
        folder: Where to; it exists.
        tensors: What the files hold by their headers, as bfloat16; on the meta device.
        shards: How many files.

    Returns:
        Bytes that the files claim to hold.
    """
    names = list(tensors)
    index: dict[str, str] = {}
    total = 0
    for number in range(shards):
        file = folder / f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        header, offset = {}, 0
        for name in names[number * len(names) // shards : (number + 1) * len(names) // shards]:
            size = 2 * tensors[name].numel()
            header[name] = {
                "dtype": "BF16",
                "shape": list(tensors[name].shape),
                "data_offsets": [offset, offset + size],
            }
            offset += size
            index[name] = file.name
        text = json.dumps(header).encode()
        with file.open("wb") as opened:
            opened.write(struct.pack("<Q", len(text)) + text)
            opened.truncate(8 + len(text) + offset)
        total += offset
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}), encoding="utf-8"
    )
    return total
