"""Seals: a list of a folder's files with their digests, ``files.json``, by which a change of any of them shows."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from frostline.base.files import atomic_file, open_regular
from frostline.base.json import json_digest, read_json, write_json

SEAL_FILE = "files.json"
_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Seal:
    """What a folder held when it was sealed.

    Attributes:
        files: Per file, by its path in the folder with ``/``, its SHA-256 in hex digits.
    """

    files: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> Seal:
        """Take the digests of all files in a folder and in those inside it."""
        names = _names(folder)
        # hashlib releases the GIL, so that several files are hashed at a time.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            digests = pool.map(file_digest, (folder / name for name in names))
            return cls(dict(zip(names, digests, strict=True)))

    @classmethod
    def read(cls, folder: Path) -> Seal:
        """Read the seal of a folder.

        Raises:
            OSError: If there is none, or it cannot be read.
            ValueError: If it is damaged.
        """
        values = read_json(folder / SEAL_FILE)
        files = values.get("files") if isinstance(values, dict) and values.get("version") == _VERSION else None
        if not isinstance(files, dict) or not all(_is_inside(name) and is_digest(files[name]) for name in files):
            raise ValueError(f"it is no list of files of version {_VERSION}")
        seal = cls(files)
        if values.get("digest") != seal.digest:
            raise ValueError("its 'digest' does not follow from its files")
        return seal

    @property
    def digest(self) -> str:
        """One SHA-256 for all files, in hex digits."""
        return json_digest(self.files)

    def write(self, folder: Path) -> None:
        """Write the seal into its folder."""
        values = {"version": _VERSION, "digest": self.digest, "files": self.files}
        with atomic_file(folder / SEAL_FILE) as file:
            write_json(file, values)

    def missing(self, folder: Path) -> list[str]:
        """Names of the files that a folder lacks."""
        return [name for name in self.files if not (folder / name).is_file()]

    def altered(self, folder: Path) -> list[str]:
        """Names of the files of a folder that are not as they were, or cannot be read."""
        there = [name for name in self.files if (folder / name).is_file()]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            digests = pool.map(_digest_or_none, (folder / name for name in there))
            return [name for name, digest in zip(there, digests, strict=True) if digest != self.files[name]]

    def beside(self, folder: Path) -> list[str]:
        """Names of what lies in a folder and was not there when it was sealed, folders and links included."""
        known = {parent for name in self.files for parent in (name, *map(str, PurePosixPath(name).parents))}
        return [name for name in _entries(folder) if name not in known]


def file_digest(file: Path) -> str:
    """SHA-256 of a regular file, in hex digits.

    Raises:
        OSError: If it cannot be read, or is no regular file.
    """
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_or_none(file: Path) -> str | None:
    try:
        return file_digest(file)
    except OSError:
        return None


def _names(folder: Path) -> list[str]:
    return [name for name in _entries(folder) if (folder / name).is_file()]


def _entries(folder: Path) -> Iterator[str]:
    for place in sorted(folder.rglob("*")):
        name = place.relative_to(folder).as_posix()
        if name != SEAL_FILE:
            yield name


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def is_digest(value: Any) -> bool:
    """Whether a value is a SHA-256 in hex digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None
