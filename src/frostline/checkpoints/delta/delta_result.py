"""What became of a delta: saved, or rebuilt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from frostline.base.escaping import printable


@dataclass(frozen=True, slots=True)
class SavedDelta:
    """What was saved.

    Attributes:
        folder: The delta.
        base: The base's name.
        stored: Names of the tensors that it holds: changed, or not in the base.
        from_base: Number of tensors that are the base's.
        files: Names of the files that it holds beside them.
        left_out: Names of files of the tuned folder that it does not bring: neither weights nor of a kind it keeps.
        bytes: Its size.
    """

    folder: str
    base: str
    stored: tuple[str, ...]
    from_base: int
    files: tuple[str, ...]
    left_out: tuple[str, ...]
    bytes: int

    def __str__(self) -> str:
        return (
            f"{len(self.stored)} of {len(self.stored) + self.from_base} tensors and {len(self.files)} files in "
            f"'{self.folder}' ({self.bytes:,} bytes); the other {self.from_base} tensors are those of '{self.base}'."
            + (f"\nLeft out: {', '.join(map(printable, self.left_out))}." if self.left_out else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RebuiltDelta:
    """What was rebuilt.

    Attributes:
        folder: The whole checkpoint.
        base: The base that it was rebuilt from.
        tensors: Number of its tensors; their bits are those of the tuned checkpoint.
        same_file: Whether the weights file is the tuned one's byte by byte; None where that was not one safetensors
            file.
    """

    folder: str
    base: str
    tensors: int
    same_file: bool | None

    def __str__(self) -> str:
        words = {True: "so is the weights file", False: "the weights file is laid out anew", None: "in one file"}
        return (
            f"{self.tensors} tensors in '{self.folder}', bit-identical to those that were saved; "
            f"{words[self.same_file]}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self)
