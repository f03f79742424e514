"""Pages in a real browser: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import frostline as fl
from tests.training.conftest import datasets_cache, on_this_machine

__all__ = ["datasets_cache", "on_this_machine"]

_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.page)


@dataclass
class Opened:
    """A page in the browser.

    Attributes:
        page: What playwright drives.
        said: What was written to the console, and errors of the script.
        asked: What was requested besides the page itself.
    """

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def value(self, part: str) -> int:
        """A figure of the plan."""
        return int(self.attribute(part))

    def attribute(self, part: str) -> str:
        """The figure of a part, as it is written."""
        return str(self.page.locator(f"[data-part={part}]").get_attribute("data-value"))

    def text(self, part: str) -> str:
        """The text of a part."""
        return str(self.page.locator(f"[data-part={part}]").text_content())

    def click(self, key: str) -> None:
        """Click what has a key; the click goes to it even where something lies above."""
        self.page.evaluate("key => document.querySelector(`[data-key='${key}']`).click()", key)

    def state(self, unit: int) -> str:
        """What a unit's block shows."""
        block = f"[data-key=switch-{unit}] >> xpath=.."
        return str(self.page.locator(block).get_attribute("data-state"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    missing = "playwright is not installed: pip install 'frostline[page-test]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=missing)
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        yield running
        running.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens a page of HTML from disk; in the end nothing was said and nothing asked for."""
    opened: list[Opened] = []

    def _show(html: str, *, width: int = 1280, height: int = 900, **options: Any) -> Opened:
        file = tmp_path / f"page-{len(opened)}.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(file.as_uri())
        opened.append(found)
        return found

    yield _show
    for one in opened:
        one.page.context.close()
        assert one.said == []
        assert [url for url in one.asked[1:] if url != "data:,"] == []


@pytest.fixture
def show_model(show: Callable[..., Opened]) -> Callable[..., Opened]:
    """Opens the page of a model's inspection."""

    def _show(model: nn.Module, **options: Any) -> Opened:
        return show(fl.inspect(model).to_html(), **options)

    return _show
