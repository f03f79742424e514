"""Where a model's name leads: to a folder on this machine, or to the hub."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from frostline.errors import ModelError, as_given


@dataclass(frozen=True, slots=True)
class Source:
    """A model's place.

    Attributes:
        name: What the user gave; for a folder, its path.
        folder: The folder; None for a hub name.
    """

    name: str
    folder: Path | None

    @property
    def lasting_name(self) -> str:
        """The name to note down: it means the same wherever it is read, and no path is taken for a hub name."""
        if self.folder is None:
            return self.name
        # What ".." leaves may be gone one day, though the folder is there.
        return str(self.folder.resolve() if ".." in self.folder.parts else self.folder.absolute())


def short_name(name: str) -> str:
    """A hub name, or a folder's own name, which says enough and tells nothing of the machine."""
    return Path(name).name if Path(name).is_absolute() else name


def given_name(name: Any) -> str:
    """What was given as a checkpoint's name, as a text.

    Raises:
        ModelError: If it is none.
    """
    name = fspath(name) if isinstance(name, PathLike) else name
    if not isinstance(name, str):
        raise ModelError(f"What was given for a checkpoint is {as_given(name)}.\nGive a folder, or a hub name.")
    if "\0" in name:
        raise ModelError(f"{name[:80]!r} is no name: it holds a zero byte.\nGive a folder, or a hub name.")
    return name


def locate(name: str | PathLike[str]) -> Source:
    """Find out whether a name is a folder or a hub name.

    Args:
        name: A folder, or a hub name such as ``org/model``.

    Raises:
        ModelError: If it is none, if it can only be a folder and there is none, or the folder holds no configuration.
    """
    name = given_name(name)
    try:
        path = Path(name).expanduser()
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long, a folder not to be entered, no such user's home
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ModelError(f"There is no folder '{name[:80]}': {reason}.\nGive a folder, or a hub name.") from None
    if is_folder:
        if not (path / "config.json").is_file():
            raise ModelError(
                f"The folder '{name}' holds no config.json, so it is no model of transformers.{_nested_hint(path)}"
            )
        return Source(str(path), path)
    if path.is_symlink() and not path.exists():
        raise ModelError(
            f"'{name}' is a link to '{path.readlink()}', which leads to nothing.\nMend the link, or name a folder."
        )
    if path.exists():
        raise ModelError(f"'{name}' is a file; a model is a folder with config.json and weights, or a hub name.")
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.endswith("/"):
        near = difflib.get_close_matches(path.name, _folders_beside(path), n=1)
        hint = (
            f"Did you mean '{path.parent / near[0]}'?"
            if near
            else "Give a folder that exists, or a hub name (org/model)."
        )
        raise ModelError(f"There is no folder '{name}'.\n{hint}")
    _require_hub_name(name)
    return Source(name, None)


def _require_hub_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, though not declared so

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ModelError(
            f"There is no folder {name[:80]!r}, and the hub has no such names.\n"
            "Give a folder, or a hub name (org/model)."
        ) from None


def _nested_hint(path: Path) -> str:
    nested = sorted(child.parent.name for child in path.glob("*/config.json"))
    if not nested:
        return "\nGive the folder that save_pretrained wrote."
    return f"\nIt has folders that are: {', '.join(nested[:3])}."


def _folders_beside(path: Path) -> list[str]:
    try:
        return [child.name for child in path.parent.iterdir() if child.is_dir()]
    except OSError:
        return []
