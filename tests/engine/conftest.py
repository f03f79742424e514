from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from frostline.base.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The lines that the engine logs."""
    logger = get_logger()
    before, logger.propagate = logger.propagate, True
    with caplog.at_level(logging.INFO, logger="frostline"):
        yield lambda: [record.getMessage() for record in caplog.records]
    logger.propagate = before
