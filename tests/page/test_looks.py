"""For everyone: no findings of axe, in dark and light, at a phone's width, with hostile names, without a script."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from torch import nn

import frostline as fl
from tests.models import tiny
from tests.report.test_page import EVIL, hostile
from tests.runs.sweep.test_result import RESULT
from tests.training import tiny as tiny_runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.page.conftest import Opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, datasets_cache: Path) -> Path:
    """A run whose labels, verdict and base are hostile."""
    from frostline.runs.train import run_training
    from frostline.runs.train_settings import TrainSettings

    place = tmp_path_factory.mktemp("run")
    rows = [row | {"label": row["label"] + EVIL} for row in tiny_runs.easy_rows(16)]
    file = tiny_runs.write_csv(place / "rows.csv", rows)
    base = tiny_runs.save_bert(place / "base")
    settings = TrainSettings(model=str(base), data=str(file), eval_data=str(file), freeze="embeddings", epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", datasets_cache)
        folder = run_training(settings, place / "out").folder
    proof = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
    (folder / "proof.json").write_text(json.dumps(proof | {"verdict": EVIL}), encoding="utf-8")
    return folder


def pages(run: Path) -> dict[str, str]:
    from frostline.runs.run_page import run_page

    model = tiny("bart", meta=True)
    fl.freeze(model, "encoder.layers, ~bias")
    return {
        "inspection": fl.inspect(model).to_html(),
        "hostile": fl.inspect(hostile()).to_html(),
        "diff": fl.diff(run.parent / "base", run, expect_frozen="all").to_html(),
        "run": run_page(run, [EVIL] * 16),
        "estimate": fl.estimate(model, rows=100, tokens=9, device="t4").to_html(),
        "sweep": replace(
            RESULT, model=EVIL, notes=(EVIL,), rows=(RESULT.rows[0], replace(RESULT.rows[1], name=EVIL))
        ).to_html(),
    }


def findings(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in violations]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(show: Callable[..., Opened], run: Path, scheme: str, width: int) -> None:
    pytest.importorskip("axe_playwright_python")
    for name, html in pages(run).items():
        # axe is put into the page, which the page's own policy forbids.
        opened = show(html, width=width, color_scheme=scheme, bypass_csp=True)
        if opened.page.locator(".more").count():
            opened.page.locator(".more").first.click()
        assert findings(opened.page) == [], name
        overflow = opened.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{name} is {overflow} px wider than the window"


def test_hostile_text_stays_text(show: Callable[..., Opened], run: Path) -> None:
    for name, html in pages(run).items():
        opened = show(html)
        opened.page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        assert opened.page.locator("script").count() == (1 if name == "sweep" else 2), name
        assert opened.page.locator("b").count() == 0
        assert "live" in opened.page.locator("html").get_attribute("class")
    opened = show(pages(run)["hostile"])
    opened.page.locator("#search").fill("weight")
    shown = opened.page.locator("[data-part=list]").text_content()
    assert "<script>alert(1)" in shown
    assert "\\u202e" in shown
    assert "\u202e" not in shown


def test_a_foreign_script_is_not_run(show: Callable[..., Opened]) -> None:
    html = fl.inspect(nn.Linear(2, 2)).to_html()
    opened = show(html.replace("</body>", "<script>document.title = 'foreign'</script></body>"))
    assert opened.page.title() != "foreign"
    assert any("Content Security Policy" in line for line in opened.said)
    opened.said.clear()


def test_without_a_script(show: Callable[..., Opened], run: Path) -> None:
    for name, html in pages(run).items():
        opened = show(html, java_script_enabled=False)
        assert opened.page.locator(".chart" if name == "sweep" else ".static svg").first.is_visible(), name
        assert not opened.page.locator(".needs-script:visible").count()


def test_tables_are_sorted(show: Callable[..., Opened], run: Path) -> None:
    opened = show(pages(run)["diff"])
    title = opened.page.get_by_role("button", name="relative L2").first
    title.click()
    figures = opened.page.locator("table.sortable").first.locator("tbody tr td:nth-child(5)").all_text_contents()
    numbers = [float(figure) for figure in figures if figure != "-"]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) > 1
    assert figures[len(numbers) :] == ["-"] * (len(figures) - len(numbers))


def test_in_print_the_tower_stays(show: Callable[..., Opened]) -> None:
    opened = show(fl.inspect(tiny("bert", meta=True)).to_html())
    opened.page.emulate_media(media="print")
    assert opened.page.locator("[data-part=tower]").is_visible()
    assert not opened.page.locator("[data-copy=selector]").is_visible()
    assert not opened.page.locator(".bar-of-tools:visible").count()
