"""Free memory within the limits of containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from frostline.store import room
from frostline.store.room import free_memory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(room, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(room, "_OWN_GROUPS", tmp_path / "own")
    return tmp_path / "groups"


def _group(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def test_without_a_limit_it_is_the_hosts(groups: Path) -> None:
    before = psutil.virtual_memory().available
    assert before / 2 < free_memory() < psutil.virtual_memory().total
    (groups.parent / "own").write_text("0::/a\n")
    _group(groups / "a", max="max", current=5, stat="inactive_file 1")
    assert before / 2 < free_memory() < psutil.virtual_memory().total


def test_the_narrowest_of_the_groups_around_it(groups: Path) -> None:
    (groups.parent / "own").write_text("0::/a/b\n")
    _group(groups / "a" / "b", max="max", current=400, stat="inactive_file 100")
    _group(groups / "a", max=1000, current=900, stat="anon 800\ninactive_file 100")
    _group(groups, max=5000, current=2000, stat="inactive_file 0")
    assert free_memory() == 200


def test_the_older_form_of_groups_in_a_container_that_does_not_show_its_own(groups: Path) -> None:
    (groups.parent / "own").write_text("4:cpu,memory:/docker/0123\n3:cpuset:/docker/0123\n0::/\n")
    _group(groups / "memory", limit_in_bytes=1000, usage_in_bytes=700, stat="inactive_file 1\ntotal_inactive_file 50")
    assert free_memory() == 350


def test_a_group_that_uses_more_than_its_limit_leaves_nothing(groups: Path) -> None:
    (groups.parent / "own").write_text("0::/\n")
    _group(groups, max=100, current=120, stat="anon 120")
    assert free_memory() == 0
