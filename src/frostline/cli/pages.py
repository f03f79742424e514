"""Pages and pictures that a command leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.base.files import output_text
from frostline.cli import options

if TYPE_CHECKING:
    from pathlib import Path


def write_page(file: Path, text: str) -> None:
    """Write a page or picture, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    with output_text(options.place(file)) as stream:
        stream.write(text)
