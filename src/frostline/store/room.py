"""How much memory a process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
# Limit, usage, and the line of memory.stat with the page cache that the kernel would give up, in cgroups 1 and 2.
_FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_SECOND = ("memory.max", "memory.current", "inactive_file")


def free_memory() -> int:
    """Bytes that are free on this host, or that the limit of the process's container leaves, if that is less."""
    available: int = psutil.virtual_memory().available
    return max(0, min([available, *_left_by_limits()]))


def _left_by_limits() -> Iterator[int]:
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left_in(_GROUPS, path, _SECOND)
        elif "memory" in controllers.split(","):
            yield from _left_in(_GROUPS / "memory", path, _FIRST)


def _left_in(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """What a group and those around it leave; inside a container, some of them cannot be seen."""
    limit, usage, cache = names
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            yield int((folder / limit).read_text()) - int((folder / usage).read_text()) + int(stat.get(cache, 0))
        except (OSError, ValueError):  # not there, or without a limit ("max")
            pass
        if folder == root:
            return
