"""The quick look at other versions names tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.versions.__main__ import QUICK


@pytest.mark.parametrize("path", QUICK)
def test_every_path_of_the_quick_part_exists(path: str) -> None:
    assert (Path(__file__).resolve().parents[2] / path).exists()
