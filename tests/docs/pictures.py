"""Make the pictures of README.md, in docs/images: the page of a plan, and a session in a terminal.

Both are of the demo's model, and made by what they show.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from frostline.demo.corpus import build_corpus, write_corpus
from frostline.demo.model import find_demo_model
from tests.docs.blocks import ROOT

IMAGES = ROOT / "docs" / "images"
FREEZE = '--freeze "embeddings, layers[:4]"'
MODEL = "all-MiniLM-L6-v2"
SESSION = (
    f"frostline inspect {MODEL}",
    f"frostline train --model {MODEL} --data train.csv --limit 1600 --eval 10% {FREEZE} --out my-model",
    f'frostline diff {MODEL} my-model --expect-frozen "embeddings, layers[:4]"',
)
_COLUMNS = 110
_MOST_BYTES = 300_000
# As that of rich, without its fonts from elsewhere.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run(line: str, folder: Path) -> str:
    """Run a command in a folder; gives what it prints."""
    words = [sys.executable, "-m", *shlex.split(line)]
    told = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=os.environ | told, capture_output=True, text=True, check=True)
    return done.stdout


def terminal(folder: Path) -> str:
    """Draw a session as SVG."""
    console = Console(record=True, width=_COLUMNS, file=StringIO(), highlight=False)
    for line in SESSION:
        console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
        console.print(Text(run(line, folder)))
    return console.export_svg(title="frostline", theme=MONOKAI, code_format=_SVG, unique_id="frostline")


def page(html: Path) -> bytes:
    """Look at a page in chromium; gives a PNG."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 960})
        opened.goto(html.as_uri())
        picture = opened.screenshot()
        browser.close()
    return picture


def main() -> None:
    """Make both."""
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(build_corpus(), folder)
        (folder / MODEL).symlink_to(find_demo_model())  # by a name that says nothing of this machine
        run(f"frostline inspect {MODEL} {FREEZE} --html page.html", folder)
        made = {"page.png": page(folder / "page.html"), "terminal.svg": terminal(folder).encode()}
    for file, content in made.items():
        if len(content) > _MOST_BYTES:
            raise SystemExit(f"{file} has {len(content):,} bytes, more than {_MOST_BYTES:,}.")
        (IMAGES / file).write_bytes(content)


if __name__ == "__main__":
    main()
