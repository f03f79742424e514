"""Every block of Python in README.md and docs/*.md runs, page by page, from the top.

README.md takes nothing for granted. A page of docs/ takes for granted what the block of docs/index.md makes. The names
of models and files in them are folders and files of this test: tiny ones, but of the same kinds. The notebook
runs likewise.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.checkpoints.folders import tensors_of, write
from tests.docs.blocks import PAGES, ROOT, blocks
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

GERMAN = "dbmdz/bert-base-german-cased"
GIVEN = "docs/index.md"
TUTORIAL = "docs/tutorial.md"
TRANSLATIONS = tuple(page for page in PAGES if page.startswith("docs/tutorial.") and page != TUTORIAL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the pages name."""
    monkeypatch.chdir(tmp_path)
    base = tiny.save_bert(tmp_path / GERMAN, num_hidden_layers=12)
    tensors = tensors_of(base)
    tuned = {name: tensor + ("pooler" in name) for name, tensor in tensors.items()}
    write(tmp_path / "my-model", tuned, base)
    tiny.wordpiece().save_pretrained(tmp_path / "my-model")
    tiny.write_csv(tmp_path / "train.csv", [row | {"label": int(row["label"] == "good")} for row in tiny.rows()])
    return tmp_path


def run(page: str, names: dict[str, Any]) -> None:
    """Run a page's blocks; a line of an error is that of the page."""
    for block in blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.text, page, "exec")
        exec(code, names)  # noqa: S102 - it is ours


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # of Lightning
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # of TRL
@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training:UserWarning")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found:UserWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page not in TRANSLATIONS])
def test_a_page_runs(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "page"}
    if page.startswith("docs/") and page != GIVEN:
        run(GIVEN, names)
    run(page, names)
    assert {"fl", "model"} <= names.keys()
    if page == TUTORIAL:
        assert blocks(page, "text")[0].text in capsys.readouterr().out


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_a_translation_has_the_same_code(page: str) -> None:
    for language in ("python", "text"):
        assert [block.text for block in blocks(page, language)] == [block.text for block in blocks(TUTORIAL, language)]


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found:UserWarning")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)  # stripped
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)  # noqa: S102 - it is ours
    assert names["trainer"].proof.ok


def test_there_are_blocks_to_run() -> None:
    assert sum(len(blocks(page, "python")) for page in PAGES) > 15
    assert all("…" not in block.text for page in PAGES for block in blocks(page, "python"))
