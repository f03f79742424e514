"""The library's one logger: plain lines on standard error, as many a user of transformers expects."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from frostline.base.escaping import printable_lines


class _Shown(logging.Formatter):
    """Writes out what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever ``sys.stderr`` is at the time, so that redirection works."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_Shown("%(message)s"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def get_logger() -> logging.Logger:
    """The logger ``frostline``; it prints from level INFO on, unless its handlers were set up already."""
    logger = logging.getLogger("frostline")
    if not logger.handlers:
        logger.addHandler(_StandardError())
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
