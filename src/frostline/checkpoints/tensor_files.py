"""A checkpoint's tensors where they lie: read piece by piece, never as a whole model."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import PathLike, cpu_count
from pathlib import Path
from typing import Any

import torch

from frostline.base.hub import hub_in_reach
from frostline.base.json import json_digest, parse_json
from frostline.checkpoints.headers import WEIGHTS, shard_names, unreachable, weight_files, weight_headers
from frostline.checkpoints.meter import Meter
from frostline.checkpoints.source import Source, locate
from frostline.compat.models import hub_file
from frostline.compat.tensors import offset_in_file
from frostline.errors import ModelError

# Elements of one piece. What works on pieces holds a few of them in fp64: some ten megabytes.
PIECE = 1 << 20
_HASHED = 1 << 20  # bytes; they stay in a core's cache while they are hashed


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """One tensor of a checkpoint.

    Attributes:
        name: Its name in the checkpoint; the first one, where it has several.
        dtype: Its dtype.
        shape: Its shape.
        file: The file that holds it.
        offset: Where its bytes begin in the file, in row-major order.
        values: The values themselves, where the file cannot be read in pieces (see `Checkpoint`).
        stored_dtype: The dtype in the file, where it is another: the values are cast when they are read.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    offset: int
    values: torch.Tensor | None = None
    stored_dtype: torch.dtype | None = None

    def cast(self, dtype: torch.dtype) -> StoredTensor:
        """The same tensor in another dtype."""
        return self if dtype == self.dtype else replace(self, dtype=dtype, stored_dtype=self.stored_dtype or self.dtype)

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def bytes(self) -> int:
        """Number of bytes."""
        return self.elements * self.dtype.itemsize

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Read some elements, counted in row-major order.

        Returns:
            A tensor of shape (stop - start,).

        Raises:
            ModelError: If the file became shorter meanwhile.
        """
        if self.values is not None:
            return self.values.reshape(-1)[start:stop].to(self.dtype)
        if stop <= start:
            return torch.empty(0, dtype=self.dtype)
        stored = self.stored_dtype or self.dtype
        size = stored.itemsize
        buffer = bytearray((stop - start) * size)
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.offset + start * size)
            _fill(stream, memoryview(buffer), self.file)
        return torch.frombuffer(buffer, dtype=stored).to(self.dtype)

    def load(self) -> torch.Tensor:
        """Read the whole tensor."""
        return self.read(0, self.elements).reshape(self.shape)

    def pieces(self, elements: int | None = None) -> Iterator[torch.Tensor]:
        """Read the elements piece by piece.

        Args:
            elements: How many of them, from the first on; None for all.
        """
        count = self.elements if elements is None else elements
        for start in range(0, count, PIECE):
            yield self.read(start, min(start + PIECE, count))

    def raw_pieces(self) -> Iterator[memoryview]:
        """Read the bytes piece by piece, in row-major order."""
        for piece in self.pieces():
            yield piece.contiguous().view(torch.uint8).numpy().data

    def digest(self) -> str:
        """SHA-256 over dtype, shape and bytes, in hex digits: that of the loaded tensor."""
        result = hashlib.sha256(f"{self.dtype} {self.shape}\n".encode())
        if self.values is not None or self.stored_dtype is not None:
            for piece in self.raw_pieces():
                result.update(piece)
            return result.hexdigest()
        buffer = memoryview(bytearray(min(self.bytes, _HASHED)))
        left = self.bytes
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.offset)
            while left:
                part = buffer[: min(left, _HASHED)]
                _fill(stream, part, self.file)
                result.update(part)
                left -= len(part)
        return result.hexdigest()


def _fill(stream: Any, buffer: memoryview, file: Path) -> None:
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled:])
        if not count:
            raise ModelError(f"The weights '{file}' became shorter while they were read.\nCopy the file anew.")
        filled += count


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder, opened.

    Memory holds names, shapes and places only. Two kinds of pickles are the exception: files in the format of
    before PyTorch 1.6 and of big-endian machines are read as a whole, and so is a tensor that is not stored row by row.

    Attributes:
        source: What the user gave.
        folder: The folder; for a hub name, that of the cache.
        tensors: Per name, the tensor; several names of one tensor lead to the same object.
        aliases: Per further name of a tensor, its first one.
    """

    source: Source
    folder: Path
    tensors: dict[str, StoredTensor]
    aliases: dict[str, str]

    @classmethod
    def open(cls, name: str | PathLike[str]) -> Checkpoint:
        """Open a checkpoint that has files of weights by its folder or hub name.

        Raises:
            ModelError: If there are no weights, or they are damaged, unsafe or out of reach.
        """
        source = locate(name)
        folder = source.folder or _fetched(source.name)
        headers = weight_headers(Source(source.name, folder))  # refuses what is damaged or unsafe
        tensors: dict[str, StoredTensor] = {}
        aliases: dict[str, str] = {}
        for file in weight_files(folder, source.name):
            if file.suffix == ".safetensors":
                _safe_tensors(file, headers, tensors, aliases)
            else:
                _pickled_tensors(file, tensors, aliases)
        return cls(source, folder, tensors, aliases)

    @property
    def own(self) -> dict[str, StoredTensor]:
        """Every tensor, under its first name."""
        return {name: tensor for name, tensor in self.tensors.items() if name not in self.aliases}

    def digests(self, meter: Meter | None = None) -> dict[str, str]:
        """SHA-256 of every tensor, under its first name; taken by a thread per core."""
        return digests_of(self.own, meter)


def digests_of(tensors: Mapping[str, StoredTensor], meter: Meter | None = None) -> dict[str, str]:
    """SHA-256 per tensor; the largest are hashed first, so that no thread ends alone.

    Args:
        tensors: Per name, the tensor.
        meter: Is told how much was hashed.
    """
    order = sorted(tensors, key=lambda name: tensors[name].bytes, reverse=True)
    found: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        digests = pool.map(StoredTensor.digest, (tensors[name] for name in order))
        for name, digest in zip(order, digests, strict=True):
            found[name] = digest
            if meter is not None:
                meter.add(tensors[name].bytes)
    return {name: found[name] for name in tensors}


def whole_digest(digests: dict[str, str]) -> str:
    """One digest for all tensors, in hex digits; it does not depend on their order."""
    return json_digest(digests)


def read_safe_header(file: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file that the library has accepted.

    Returns:
        The header, and where the tensors' bytes begin.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return parse_json(stream.read(length).decode()), 8 + length


def _safe_tensors(
    file: Path, headers: dict[str, torch.Tensor], tensors: dict[str, StoredTensor], aliases: dict[str, str]
) -> None:
    header, begin = read_safe_header(file)
    metadata = header.pop("__metadata__", None) or {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape = tuple(entry["shape"])
        tensors[name] = StoredTensor(name, headers[name].dtype, shape, file, begin + entry["data_offsets"][0])
    # safetensors.torch.save_model notes what it left out as a further name of what it kept.
    for name, first in metadata.items():
        if name not in header and first in header:
            tensors[name] = tensors[first]
            aliases[name] = first


def _pickled_tensors(file: Path, tensors: dict[str, StoredTensor], aliases: dict[str, str]) -> None:
    in_pieces = as_is = _stored_as_is(file)
    table: dict[str, torch.Tensor] = {}
    if as_is:
        table = torch.load(file, map_location="meta", weights_only=True)
        in_pieces = all(offset_in_file(tensor) is not None for tensor in table.values() if tensor.numel())
    if not in_pieces:  # mapped, where the file's form allows it
        table = torch.load(file, map_location="cpu", weights_only=True, mmap=as_is)
    seen: dict[tuple[Any, ...], str] = {}
    whole: dict[str, torch.Tensor] = {} if in_pieces else table
    for name, tensor in table.items():
        storage = tensor.untyped_storage()
        # Only a tensor on the meta device knows the place of its bytes in the file.
        begin = offset_in_file(tensor) if in_pieces else storage.data_ptr()
        turned = tensor.is_conj() or tensor.is_neg()
        key = (begin, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride(), turned)
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            tensors[name] = tensors[seen[key]]
            continue
        seen[key] = name
        offset = int(begin or 0) + int(tensor.storage_offset()) * tensor.dtype.itemsize
        values = None
        if not in_pieces or begin is None or turned or not tensor.is_contiguous():
            whole = whole or torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            values = whole[name].detach().resolve_conj().resolve_neg().contiguous()
        tensors[name] = StoredTensor(name, tensor.dtype, tuple(tensor.shape), file, offset, values)


def _stored_as_is(file: Path) -> bool:
    """Whether the bytes of the tensors lie in a pickle's file as they lie in memory."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        order = next((name for name in archive.namelist() if name.endswith("/byteorder")), None)
        plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        return plain and (order is None or archive.read(order) == b"little")


def _fetched(name: str) -> Path:
    """The hub's cache folder of a model; its weights are fetched if they are not in it."""
    for local in (True, False):
        if not local and not hub_in_reach():
            raise unreachable(name)
        hub_file(name, "config.json", cached_only=local)
        for single, index in WEIGHTS:
            if (file := hub_file(name, single, cached_only=local)) is not None:
                return file.parent
            file = hub_file(name, index, cached_only=local)
            if file is not None and all(hub_file(name, shard, cached_only=local) for shard in shard_names(file)):
                return file.parent
    raise ModelError(
        f"The hub has no weights of '{name}' ({' or '.join(single for single, _ in WEIGHTS)}).\nCheck the name."
    )
