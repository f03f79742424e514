"""Every line with ``frostline`` in README.md and docs/*.md is one that the command takes."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from frostline.cli.app import app
from frostline.plan.selectors import parse as parse_selector
from tests.docs.blocks import PAGES, ROOT, commands

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES = [(f"{page}:{number}", line) for page in PAGES for number, line in commands(page)]


def parse(command: Any, words: Sequence[str]) -> dict[str, Any]:
    """Parse words as a command would, without running it; gives the parameters of the last subcommand."""
    context = command.make_context(command.name, list(words))
    if not hasattr(command, "resolve_command"):
        values: dict[str, Any] = context.params
        return values
    _, subcommand, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    return parse(subcommand, rest)


@pytest.mark.parametrize(("where", "line"), LINES, ids=[where for where, _ in LINES])
def test_a_line_is_taken(where: str, line: str) -> None:
    words = shlex.split(line.removeprefix("$ ").rpartition("| ")[2], comments=True)
    assert words[0] == "frostline"
    values = parse(typer.main.get_command(app), words[1:])
    for name in ("freeze", "train_only", "lora", "dora", "expect_frozen", "expect_moved"):
        if values.get(name):
            parse_selector(values[name])


def test_a_wrong_line_is_not_taken() -> None:
    for words in (["inspect", "--nosuch"], ["store", "nosuch"], ["train"], ["evaluate", "a", "--limit", "x"]):
        with pytest.raises(typer.TyperException):
            parse(typer.main.get_command(app), words)


def test_there_are_lines_to_take() -> None:
    assert len(LINES) > 20


def test_the_front_page_lists_every_page() -> None:
    front = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\((\w[\w.-]*\.md)\)", front))
    there = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    assert there - listed == {"index.md"}
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"([\w.-]+\.md)$", menu, re.MULTILINE)) == sorted(there)


def test_the_front_page_answers_the_question() -> None:
    front = " ".join((ROOT / "docs" / "index.md").read_text(encoding="utf-8").split())
    assert "Are the pretrained layers frozen" in front
    assert "nothing is frozen unless you freeze it" in front
    assert "| frost line |" in front
