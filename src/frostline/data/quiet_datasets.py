"""Keeping ``datasets`` and the hub client quiet while Frostline reads.

Their log lines ("Failed to read file ...", "Retrying in 1s ...") say less than Frostline's own
errors, so they are held back; progress bars appear on a terminal only. Both settings are put back.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Holds back log lines, and progress bars unless standard error is a terminal."""
    import datasets

    levels = {logger: logger.level for logger in map(logging.getLogger, ("datasets", "huggingface_hub"))}
    hide_bars = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    if hide_bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        if hide_bars:
            datasets.enable_progress_bars()
