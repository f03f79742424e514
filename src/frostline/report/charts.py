"""Curves as inline SVG, drawn by matplotlib, in the colours of the page that they stand in."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from frostline.base.escaping import printable
from frostline.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
# Colours that matplotlib draws in, and those of the page that take their place; so dark and light need one drawing.
INK, RULE = "#010203", "#010204"
LINES = ("#010205", "#010206", "#010207", "#010208")
_ON_PAGE = {INK: "var(--muted)", RULE: "var(--rule)"} | {
    colour: f"var(--curve-{place})" for place, colour in enumerate(LINES, 1)
}
# Where no style sheet of ours is, as in a notebook: what can be seen on dark and on light.
_ALONE = {INK: "currentColor", RULE: "#88888866"} | dict(
    zip(LINES, ("#2f86d1", "#d0703a", "#85929e", "#c4508f"), strict=True)
)
_DASHES = ("-", "--", "-.", ":")
_SETTINGS = {"svg.fonttype": "none", "text.color": INK, "axes.edgecolor": RULE, "axes.labelcolor": INK}
_TICKS = {"xtick.color": INK, "ytick.color": INK, "font.size": 10, "text.parse_math": False}
_NO_EXTRA = "Curves need matplotlib: pip install 'frostline[plot]'."


def inline(draw: Callable[[], Figure], title: str, *, alone: bool = False) -> Markup:
    """Draw a figure as an element of the page.

    Args:
        draw: Draws it, in the colours `INK`, `RULE` and `LINES`.
        title: What it shows, for those who do not see it.
        alone: Whether it stands outside of the page, so that its colours have to be its own.

    Returns:
        The element ``svg``, without a style sheet or a script.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise MissingExtraError(_NO_EXTRA) from None
    settings: Any = _SETTINGS | _TICKS | {"svg.hashsalt": title}
    written = io.BytesIO()
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has others
        draw().savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _restyled(written.getvalue(), title, _ALONE if alone else _ON_PAGE)


def curves(
    title: str, lines: Mapping[str, Sequence[tuple[float, float]]], bands: Sequence[tuple[str, float, float]] = ()
) -> Markup:
    """Draw lines over epochs.

    Args:
        title: What the picture shows, for those who do not see it.
        lines: Per name, its points: epoch and value.
        bands: Stretches of epochs that stand out from one another: name, beginning and end.

    Returns:
        The element ``svg``, without a style sheet or a script.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """

    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for place, (name, began, ended) in enumerate(bands):
            if place % 2 == 0:
                axes.axvspan(began, ended, color=RULE, alpha=0.45, linewidth=0)
            axes.annotate(
                name, ((began + ended) / 2, 1), xytext=(0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", fontsize=8,
            )  # fmt: skip
        for place, (name, points) in enumerate(lines.items()):
            style: Any = {"color": LINES[place % 4], "linestyle": _DASHES[place % 4], "linewidth": 2}
            marker = "o" if len(points) <= 20 else ""
            axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=4, **style)
        axes.set_xlabel("epoch")
        axes.grid(color=RULE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="best")
        return figure

    return inline(draw, title)


def _restyled(text: bytes, title: str, colours: Mapping[str, str]) -> Markup:
    """Say as attributes what matplotlib says in style sheets, which the page's policy forbids."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(text)  # noqa: S314 - matplotlib wrote it just now
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"}:
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", ET.tostring(root, encoding="unicode")))
    for element in root.iter():
        for declaration in element.attrib.pop("style", "").split(";"):
            name, _, value = declaration.partition(":")
            if name.strip() == "font":  # size and families; the latter are the page's
                name, value = "font-size", value.split()[0]
            if value.strip():
                element.set(name.strip(), colours.get(value.strip(), value.strip()))
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": printable(title), "stroke-linejoin": "round", "class": "chart"}
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - matplotlib escapes its texts
