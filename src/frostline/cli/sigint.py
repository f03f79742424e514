"""Ctrl-C while a library loads: heeded once it is loaded.

A ``KeyboardInterrupt`` raised in the middle of ``import torch`` can pass through its C++ code, which then aborts the
process with a message of its own.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130  # exit status
_IMPORT_SYSTEM = "<frozen importlib"  # how the names of its files begin
_AGAIN = 0.05  # seconds until one that came too early is sent again


class Patient:
    """A handler of SIGINT that raises ``KeyboardInterrupt``, but not while anything is imported."""

    def __init__(self) -> None:
        self._waits = False

    def install(self) -> None:
        """Take the place of Python's own handler; a signal that is ignored or handled otherwise stays so."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise, or look again a little later."""
        if not _importing(frame):
            raise KeyboardInterrupt
        if not self._waits:
            self._waits = True
            timer = threading.Timer(_AGAIN, self._send_again, (number,))
            timer.daemon = True
            timer.start()

    def _send_again(self, number: int) -> None:
        self._waits = False
        main = threading.main_thread().ident
        if main is not None and hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, number)  # wakes it where it waits for something
        else:
            signal.raise_signal(number)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):
            return True
        frame = frame.f_back
    return False
