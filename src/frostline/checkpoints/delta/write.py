"""Writing a safetensors file piece by piece, in the order and form in which safetensors itself writes it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from frostline.base.dtypes import dtype_word
from frostline.checkpoints.tensor_files import StoredTensor
from frostline.errors import ModelError

# The format's word per dtype of torch, in the order in which safetensors sorts them, from the last to the first.
_WORDS = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "bfloat16": "BF16",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_DTYPES = {word: name for name, word in _WORDS.items()}


def dtype_of(word: str) -> torch.dtype | None:
    """The dtype of torch that a word of the format means; None for one that is not known."""
    found: torch.dtype | None = getattr(torch, _DTYPES.get(word, ""), None)
    return found


def dtype_of_name(name: str) -> torch.dtype | None:
    """The dtype of torch that has a name, such as ``float32``; None for one that the format does not hold."""
    return dtype_of(_WORDS.get(name, ""))


def write_safetensors(file: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> str:
    """Write tensors that lie in other files.

    Args:
        file: The file to make.
        tensors: Per name, the tensor.
        metadata: What the file's header says beside them.

    Returns:
        The file's SHA-256, in hex digits.

    Raises:
        ModelError: If a tensor has a dtype that the format does not have.
    """
    ranks = list(_WORDS)
    words = {name: dtype_word(tensor.dtype) for name, tensor in tensors.items()}
    for name, word in words.items():
        if word not in _WORDS:
            raise ModelError(f"The tensor {name} is of the dtype {word}, which safetensors files do not hold.")
    order = sorted(tensors, key=lambda name: (ranks.index(words[name]), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].bytes
        header[name] = {
            "dtype": _WORDS[words[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for part in (struct.pack("<Q", len(text)), text):
            stream.write(part)
            digest.update(part)
        for name in order:
            for piece in tensors[name].raw_pieces():
                stream.write(piece)
                digest.update(piece)
    return digest.hexdigest()
