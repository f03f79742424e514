"""Output folders as runs leave them, whole or interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from frostline.base.sealing import Seal
from frostline.runs.output_folder import OutputFolder

if TYPE_CHECKING:
    import pytest


def checkpoint(folder: OutputFolder, step: int, *, complete: bool = True) -> Path:
    place = folder.checkpoints / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"weights")
    if complete:
        Seal.of(place).write(place)
    return place


def interrupted(target: Path) -> OutputFolder:
    """A folder whose run left one checkpoint."""
    folder = OutputFolder(target)
    with folder.claim(resume=False, overwrite=False):
        folder.remember({"epochs": 3.0})
        checkpoint(folder, 3)
    return folder


def fill(target: Path, text: str = "old") -> Path:
    """Make what a run leaves."""
    target.mkdir()
    for name in ("model.safetensors", "proof.json", "metrics.json"):
        (target / name).write_text(text, encoding="utf-8")
    Seal.of(target).write(target)
    return target


def fail_to_rename(monkeypatch: pytest.MonkeyPatch, error: BaseException, only: str | None = None) -> None:
    """Have renaming raise an error; of one name, or of any."""
    rename = Path.rename

    def failing(place: Path, new: Path) -> Path:
        if only in {None, place.name}:
            raise error
        return rename(place, new)

    monkeypatch.setattr(Path, "rename", failing)


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
