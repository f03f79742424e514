"""What a store on disk says of itself, ``header.json``, read with distrust."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frostline.base.files import atomic_file
from frostline.base.json import parse_json
from frostline.base.logging import get_logger
from frostline.errors import StoreError
from frostline.store import folder as places
from frostline.store.spec import StoreKey, StreamSpec, dtype_name, dtype_named, plain_texts

_FORMAT = 2
_LARGEST = 1 << 20  # bytes
_MOST_STREAMS = 256
_FIELDS = {"format", "frostline", "created", "key", "dtype", "streams", "about"}


@dataclass(frozen=True, slots=True)
class Header:
    """What a store holds.

    Attributes:
        key: All that its content depends on.
        streams: The tensors that it holds per row.
        dtype: What floats are stored in; None for as they are.
        about: What it is for, in free words: the model's name, the data's.
        created: When it was begun, in UTC, ISO 8601.
        frostline: The version that began it.
    """

    key: StoreKey
    streams: tuple[StreamSpec, ...]
    dtype: torch.dtype | None
    about: dict[str, str]
    created: str
    frostline: str

    def to_dict(self) -> dict[str, Any]:
        """The header as plain values."""
        return {
            "format": _FORMAT,
            "frostline": self.frostline,
            "created": self.created,
            "key": self.key.to_dict(),
            "dtype": None if self.dtype is None else dtype_name(self.dtype),
            "streams": [stream.to_dict() for stream in self.streams],
            "about": self.about,
        }

    def differences(self, other: Header) -> list[str]:
        """Why data of the other one is none of this one, in words."""
        return [
            *self.key.differences(other.key),
            *(["the streams differ"] if self.streams != other.streams else []),
            *([f"floats stored as {self.dtype} instead of {other.dtype}"] if self.dtype != other.dtype else []),
        ]


def read_header(folder: Path) -> Header:
    """Read the header of a store.

    Raises:
        FileNotFoundError: If there is none.
        StoreError: If it is damaged, hostile or of another format.
    """
    file = folder / places.HEADER
    try:
        with places.open_plain(file) as stream:
            text = stream.read(_LARGEST + 1)
        return _parse(text)
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise StoreError(f"'{file}' is damaged: it is no text in UTF-8") from None
    except (StoreError, OSError, ValueError) as error:
        raise StoreError(f"'{file}' is damaged: {str(error)[:200]}") from None


def _parse(text: bytes) -> Header:
    if len(text) > _LARGEST:
        raise StoreError(f"it is larger than {_LARGEST:,} bytes.")
    values = parse_json(text.decode())
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise StoreError(f"it is no header of format {_FORMAT}.")
    if values.keys() != _FIELDS:
        raise StoreError(f"its '{min(values.keys() ^ _FIELDS)[:40]}' is not what a header has.")
    streams = values["streams"]
    if not isinstance(streams, list) or not 0 < len(streams) <= _MOST_STREAMS:
        raise StoreError("its streams are no list.")
    said = plain_texts({name: values[name] for name in ("created", "frostline")})
    return Header(
        key=StoreKey.from_dict(values["key"]),
        streams=tuple(map(StreamSpec.from_dict, streams)),
        dtype=None if values["dtype"] is None else dtype_named(values["dtype"]),
        about=plain_texts(values["about"]),
        **said,
    )


def settle(folder: Path, wanted: Header) -> None:
    """Make sure that a folder holds what is wanted; what holds anything else is begun anew, and a line says why.

    Raises:
        OutputError: If the folder cannot be written.
        StoreError: If it holds anything else and another process writes to it, or a text in `wanted` is too long.
    """
    from filelock import FileLock

    if _fault(folder, wanted) == "":
        return
    text = json.dumps(wanted.to_dict(), indent=1) + "\n"
    _parse(text.encode())  # what could not be read again is not written
    with places.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / places.LOCK):
            fault = _fault(folder, wanted)
            if fault == "":
                return
            if places.in_use(folder):
                raise StoreError(f"Another process writes to the store '{folder}'.\nWait for it, or name another.")
            if fault:
                get_logger().warning(f"The store '{folder}' is rebuilt: {fault}.")
            discard(places.own_files(folder))
            with atomic_file(folder / places.HEADER) as file:
                file.write_text(text, encoding="utf-8")


def _fault(folder: Path, wanted: Header) -> str | None:
    """Why the folder's data cannot be taken: nothing where it can, None where there is no store."""
    try:
        return ", ".join(wanted.differences(read_header(folder)))
    except FileNotFoundError:
        return None
    except StoreError as error:
        return str(error).rstrip(".")


def discard(files: Sequence[Path]) -> int:
    """Delete files of a store, the header first, so that the rest is never taken for a store; returns their bytes."""
    freed = 0
    for file in sorted(files, key=lambda file: file.name != places.HEADER):
        if file.name != places.LOCK:
            freed += file.lstat().st_size
            file.unlink()
    return freed
