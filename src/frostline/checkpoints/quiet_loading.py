"""Keeping transformers from talking while Frostline loads: it says what matters itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the reports and progress bars of transformers for a block."""
    from transformers.utils import logging as reports

    verbosity = reports.get_verbosity()
    had_bars = reports.is_progress_bar_enabled()
    reports.set_verbosity(logging.ERROR)
    reports.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        reports.set_verbosity(verbosity)
        if had_bars:
            reports.enable_progress_bar()  # type: ignore[no-untyped-call]
