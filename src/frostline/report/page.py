"""Pages: a template filled with plain values, all of whose text is escaped."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from frostline.base.escaping import printable
from frostline.base.json import finite
from frostline.report.assets import policy, script, style

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jinja2 import Environment


def render(template: str, *, data: Mapping[str, Any] | None = None, **values: Any) -> str:
    """Fill a template of ``report/templates``.

    Args:
        template: Its file's name.
        data: What the page's script reads; None for a page without a tower.
        **values: What the template names; texts are escaped, `Markup` is not.

    Returns:
        A page of HTML that needs nothing beside itself.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            data=None if data is None else embedded(data),
            policy=policy(),
            script=Markup(script()),  # noqa: S704 - it is ours
            style=Markup(style()),  # noqa: S704 - likewise
            made=f"Made by Frostline {version('frostline')}.",
            **values,
        )
    )


def fragment(verdict: str, svg: Markup, lines: Iterable[str] = ()) -> str:
    """Write what a notebook shows of a result: its answer, a picture, and lines."""
    return _environment().get_template("fragment.html").render(verdict=verdict, svg=svg, lines=list(lines))


def embedded(values: Any) -> Markup:
    """Write plain values as JSON that can stand in a page: no sign of it can end its element."""
    text = json.dumps(finite(values), ensure_ascii=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - it was escaped just now


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("frostline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """Write out what would steer the order of text instead of showing."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
