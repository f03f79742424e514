"""The page's own script and style, joined from their files."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

# Each after those it imports from.
MODULES = (
    "format", "dom", "model", "plan", "describe", "figures", "cost", "snippets", "copying", "blocks", "line", "tower",
    "details", "controls", "answers", "choosing", "sorting", "main",
)  # fmt: skip
STYLES = ("palette", "page", "tower", "panel")

_IMPORT = re.compile(r"^import .*?;\n", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


@cache
def script() -> str:
    """The modules as one: their imports are left out, since what they name stands above."""
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _read(f"{name}.js"))) for name in MODULES)


@cache
def style() -> str:
    """The style sheets as one."""
    return "\n".join(_read(f"{name}.css") for name in STYLES)


@cache
def policy() -> str:
    """The page's policy of content: nothing from outside, no script and no style but its own, by their digests."""
    return (
        f"default-src 'none'; script-src '{_source(script())}'; style-src '{_source(style())}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (files("frostline.report") / "static" / name).read_text(encoding="utf-8")
