"""A row of a sweep is chosen, and what there is to copy is of that row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.runs.sweep.test_page import GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.page.conftest import Opened


def test_choosing_and_copying(show: Callable[..., Opened]) -> None:
    opened = show(GIVEN.to_html(), permissions=["clipboard-read", "clipboard-write"])
    assert opened.text("selector") == "low"
    opened.page.get_by_role("button", name="time").click()
    opened.page.get_by_role("button", name="time").click()
    names = [text.strip() for text in opened.page.locator("tbody label").all_text_contents()]
    assert names == ["5. head", "4. middle", "2. low", "1. nothing", "3. high"]
    opened.page.get_by_role("radio", name="middle").check()
    assert opened.text("selector") == "middle"
    opened.page.locator("[data-copy=command]").click()
    done = "() => document.querySelector('[data-copy=command]').textContent == 'Copied'"
    opened.page.wait_for_function(done)
    copied = opened.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(
        "frostline train --model somewhere --data 'a b.csv' --eval 10% --freeze middle --epochs 3 "
    )
    opened.page.keyboard.press("Tab")
    opened.page.get_by_role("radio", name="nothing").check()
    assert opened.page.locator("[data-copy=selector]").is_disabled()
