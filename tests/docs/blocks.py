"""The blocks of code in README.md and docs/*.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: The page's path.
        line: The number of its first line in it.
        language: What stands behind the fence.
        text: What stands within.
    """

    page: str
    line: int
    language: str
    text: str


def blocks(page: str, language: str) -> list[Block]:
    """All blocks of a page in one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text[: match.start()].count("\n") + 2, language, match["text"])
        for match in _FENCE.finditer(text)
        if match["language"] == language
    ]


def commands(page: str) -> list[tuple[int, str]]:
    """The console lines of a page that call ``frostline``, each with its number."""
    return [
        (block.line + place, line)
        for language in ("console", "")
        for block in blocks(page, language)
        for place, line in enumerate(block.text.splitlines())
        if re.match(r"(\$ )?(.*\| )?frostline ", line)
    ]
