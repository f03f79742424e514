"""What a store holds, and all that its content depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from math import prod
from typing import Any

import torch

from frostline.base.dtypes import dtype_word
from frostline.errors import StoreError

_DTYPES = {
    dtype_word(dtype): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
_LIBRARIES = ("torch", "transformers", "frostline")
_LARGEST_ELEMENT = 1 << 32  # bytes
_LONGEST_TEXT = 4096


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype's name without ``torch.``.

    Raises:
        StoreError: If a store does not hold that dtype.
    """
    name = dtype_word(dtype)
    if name not in _DTYPES:
        raise StoreError(f"A store holds no {name}, only {', '.join(_DTYPES)}.")
    return name


def dtype_named(name: object) -> torch.dtype:
    """The dtype of that name.

    Raises:
        StoreError: If a store does not hold that dtype.
    """
    if not isinstance(name, str) or name not in _DTYPES:
        raise StoreError(f"{str(name)[:40]!r} is no dtype that a store holds.")
    return _DTYPES[name]


def installed_versions() -> dict[str, str]:
    """The versions of the libraries that activations depend on."""
    return {name: version(name) for name in _LIBRARIES}


def plain_texts(values: object) -> dict[str, str]:
    """Read a table of short texts from untrusted values.

    Raises:
        StoreError: If it is something else.
    """
    if not isinstance(values, dict):
        raise StoreError("a table of texts is missing.")
    for text in (*values.keys(), *values.values()):
        if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
            raise StoreError(f"{str(text)[:40]!r} is no short text.")
    return dict(values)


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One tensor that crosses the frost line.

    Attributes:
        name: Any text, such as ``layer 4/0``.
        shape: Trailing shape of one element (one token, or one row): ``(384,)``, ``(12, 64)`` or ``()``.
        dtype: The dtype that the model has it in.

    Raises:
        StoreError: If a store cannot hold it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        dtype_name(self.dtype)
        if any(size < 1 for size in self.shape) or prod(self.shape) * self.dtype.itemsize > _LARGEST_ELEMENT:
            raise StoreError(f"The stream {self.name[:80]!r} has elements of shape {self.shape}, which no store holds.")

    def to_dict(self) -> dict[str, Any]:
        """The stream as plain values."""
        return {"name": self.name, "shape": list(self.shape), "dtype": dtype_name(self.dtype)}

    @classmethod
    def from_dict(cls, values: object) -> StreamSpec:
        """Build a stream from what `to_dict` gives, read with distrust.

        Raises:
            StoreError: If the values are something else.
        """
        if not isinstance(values, dict) or values.keys() != {"name", "shape", "dtype"}:
            raise StoreError("a stream is not described as it should be.")
        name, shape = values["name"], values["shape"]
        if not isinstance(name, str) or len(name) > _LONGEST_TEXT:
            raise StoreError("a stream's name is no short text.")
        if not isinstance(shape, list) or len(shape) > 8 or not all(type(size) is int for size in shape):
            raise StoreError(f"the shape of the stream {name[:80]!r} is no list of a few whole numbers.")
        return cls(name, tuple(shape), dtype_named(values["dtype"]))


@dataclass(frozen=True, slots=True)
class StoreKey:
    """All that a store's content depends on; any difference means another store.

    Attributes:
        prefix: Digest of the frozen prefix's weights and buffers.
        config: Digest of the model's configuration.
        inputs: Digest of what makes model inputs: tokenizer and truncation, where they are known.
        boundary: Where the activations are taken, such as ``layer 4``.
        dtype: What floats are stored as, such as ``float32``.
        attention: How attention is computed, and where, such as ``sdpa on cpu``.
        versions: Per library, its version; by default those that are installed.
    """

    prefix: str
    config: str
    inputs: str
    boundary: str
    dtype: str
    attention: str
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    def digest(self) -> str:
        """The key in 64 hex digits."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The key as plain values."""
        return {**{name: getattr(self, name) for name in _TEXTS}, "versions": dict(self.versions)}

    @classmethod
    def from_dict(cls, values: object) -> StoreKey:
        """Build a key from what `to_dict` gives, read with distrust.

        Raises:
            StoreError: If the values are something else.
        """
        if not isinstance(values, dict) or values.keys() != {*_TEXTS, "versions"}:
            raise StoreError("its key is not what a store's key is.")
        texts = plain_texts({name: values[name] for name in _TEXTS})
        return cls(**texts, versions=plain_texts(values["versions"]))

    def differences(self, other: StoreKey) -> list[str]:
        """What distinguishes this key from another one, in words; nothing if they are equal."""
        said = {
            "prefix": "the prefix's weights differ",
            "config": "the model's configuration differs",
            "inputs": "the tokenizer or the truncation differs",
            "boundary": f"taken at {self.boundary} instead of {other.boundary}",
            "dtype": f"stored as {self.dtype} instead of {other.dtype}",
            "attention": f"attention by {self.attention} instead of {other.attention}",
        }
        libraries = sorted(self.versions.keys() | other.versions.keys())
        return [
            *(words for name, words in said.items() if getattr(self, name) != getattr(other, name)),
            *(
                f"{name} {self.versions.get(name, 'unknown')} instead of {other.versions.get(name, 'unknown')}"
                for name in libraries
                if self.versions.get(name) != other.versions.get(name)
            ),
        ]


_TEXTS = tuple(name for name in StoreKey.__dataclass_fields__ if name != "versions")
