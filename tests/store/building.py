"""Small stores for the tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from frostline.store.spec import StoreKey, StreamSpec
from frostline.store.store import Packed, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STREAMS = (
    StreamSpec("layer 4/0", (3,), torch.float32),
    StreamSpec("position/../ids", (), torch.int64),
    StreamSpec("half", (2, 2), torch.bfloat16),
)


def key(**changes: Any) -> StoreKey:
    plain = StoreKey("weights", "config", "tokenizer", "layer 4", "float32", "sdpa", {"torch": "2.13.0"})
    return replace(plain, **changes)


def digest(row: int) -> bytes:
    return hashlib.blake2b(str(row).encode(), digest_size=16).digest()


def digests(rows: Sequence[int]) -> list[bytes]:
    return [digest(row) for row in rows]


def row_values(row: int) -> dict[str, torch.Tensor]:
    """What row ``row`` holds: per stream another number of elements, some none at all."""
    generator = torch.Generator().manual_seed(row)
    return {
        "layer 4/0": torch.randn(row % 5, 3, generator=generator),
        "position/../ids": torch.randint(-(2**62), 2**62, (1 + row % 3,), generator=generator),
        "half": torch.randn(1, 2, 2, generator=generator).bfloat16(),
    }


def packed(rows: Sequence[int]) -> dict[str, Packed]:
    values = [row_values(row) for row in rows]
    return {
        stream.name: Packed(
            torch.cat([torch.empty(0, *stream.shape, dtype=stream.dtype), *(value[stream.name] for value in values)]),
            torch.tensor([len(value[stream.name]) for value in values], dtype=torch.int64),
        )
        for stream in STREAMS
    }


def on_disk(folder: Path, **changes: Any) -> Store:
    return Store.on_disk(folder, key(), STREAMS, **changes)


def put(store: Store, rows: Sequence[int]) -> None:
    store.put(digests(rows), packed(rows))


def holds(store: Store, rows: Sequence[int]) -> bool:
    """Whether a store gives back these rows, bit by bit."""
    return same(store.get(digests(rows)), packed(rows))


def is_complete(store: Store) -> bool:
    """Whether `complete` was called, in this process or an earlier one, and no row was lost since."""
    rows = store._backing.completed_rows
    return rows is not None and rows <= store.rows


def same(found: dict[str, Packed], wanted: dict[str, Packed]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].values.dtype == wanted[name].values.dtype
        and torch.equal(found[name].values, wanted[name].values)
        and torch.equal(found[name].lengths, wanted[name].lengths)
        for name in wanted
    )


def place(folder: Path) -> Path:
    """The one store in a folder of stores."""
    (only,) = folder.iterdir()
    return only
