"""A bar for work on checkpoints: shown on a terminal, silent in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from frostline.checkpoints.meter import Report, silent


@contextmanager
def byte_bar(title: str) -> Iterator[Report]:
    """Show how many bytes of checkpoints were worked through; the bar is taken away in the end.

    Args:
        title: What is being done, such as ``comparing``.

    Yields:
        What is to be called with the bytes that are done, and with those of the whole.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
