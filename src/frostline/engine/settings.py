"""What the engine may do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from frostline.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

StoreWhere = Literal["auto", "off", "memory", "disk"]
StoreDtype = Literal["fp32", "bf16", "fp16"]

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
# Of the memory that is free when the store is made.
_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine may do; what each setting means, its help says, also on the command line of a script.

    Raises:
        SettingsError: If one is none.
    """

    store: StoreWhere = field(
        default="auto",
        metadata={"help": "Where the frozen part's activations are kept. 'auto': where it takes the least time."},
    )
    store_dir: Path | None = field(
        default=None, metadata={"help": "The folder for stores on disk; by default one in the user's cache."}
    )
    store_budget: str | None = field(
        default=None,
        metadata={"help": "The most that a store may take, such as '4GB'; by default half of what is free."},
    )
    store_dtype: StoreDtype | None = field(
        default=None, metadata={"help": "What activations are stored as; by default as they are computed."}
    )
    padding_free: bool = field(default=True, metadata={"help": "Run layers on real tokens only, where that is exact."})
    guard: bool = field(
        default=True,
        metadata={"help": "Repeat a step on the plain path now and then, and stop what turns out to be wrong."},
    )

    def __post_init__(self) -> None:
        if self.store not in {"auto", "off", "memory", "disk"}:
            raise SettingsError(f"store={self.store!r} is none of 'auto', 'off', 'memory' and 'disk'.")
        if self.store_dtype not in {None, "fp32", "bf16", "fp16"}:
            raise SettingsError(f"store_dtype={self.store_dtype!r} is none of 'fp32', 'bf16' and 'fp16'.")
        if self.store_budget is not None:
            parse_size(self.store_budget)

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The dtype that floats are stored in; None for their own."""
        import torch

        names = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return names.get(self.store_dtype) if self.store_dtype is not None else None

    def budget(self, free: int) -> int:
        """The most bytes that a store may take where so many are free."""
        return parse_size(self.store_budget) if self.store_budget is not None else int(free * _SHARE)


def parse_size(text: str) -> int:
    """Read a size in bytes: ``"4GB"``, ``"512 MiB"``, ``"1000000"``.

    Raises:
        SettingsError: If it is no size.
    """
    found = _SIZE.fullmatch(text)
    if found is None or found[2].lower() not in _UNITS:
        raise SettingsError(f"The store's budget is {text!r}, which is no size.\nWrite it as '4GB' or '512MiB'.")
    return int(float(found[1]) * _UNITS[found[2].lower()])
