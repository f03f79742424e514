"""What tests write outside the temporary folder: seen as Python opens, makes or moves files in this process.

Processes that tests start inherit the environment, in which the home folder is a temporary one as well.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# The user's caches by other names than that of the home folder.
CACHES = (
    *("XDG_CACHE_HOME", "FROSTLINE_STORE", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE"),
    *("HF_XET_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "TORCH_HOME"),
)

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Per event, where its paths stand that come to be or are gone, and beside each the folder that it is relative to.
_PATHS = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
}
# What Python, pytest and hypothesis keep for themselves; devices.
_KEPT = {"__pycache__", ".pytest_cache", ".hypothesis"}
_ALLOWED = tuple(os.path.realpath(path) for path in (tempfile.gettempdir(), "/dev", "/proc"))

written: list[str] = []


def watch() -> None:
    """Begin to watch; there is no end to it."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES:
            _note(path)
    elif event in _PATHS:
        for path, folder in _PATHS[event]:
            _note(arguments[path], arguments[folder])


def _note(path: Any, folder: int = -1) -> None:
    if not isinstance(path, str | bytes | os.PathLike):  # the number of a file that is open already
        return
    name = os.fsdecode(path)
    whole = os.path.realpath(name if folder < 0 else f"/proc/self/fd/{folder}/{name}")
    if not whole.startswith(_ALLOWED) and _KEPT.isdisjoint(Path(whole).parts):
        written.append(whole)
