"""Curves as inline SVG, drawn by matplotlib, in the colours of the page that they stand in."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from frostline.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
# Colours that matplotlib draws in, and those of the page that take their place; so dark and light need one drawing.
_INK, _RULE = "#010203", "#010204"
_LINES = ("#010205", "#010206", "#010207", "#010208")
_COLOURS = {_INK: "var(--muted)", _RULE: "var(--rule)"} | {
    colour: f"var(--curve-{place})" for place, colour in enumerate(_LINES, 1)
}
_DASHES = ("-", "--", "-.", ":")
_SETTINGS = {"svg.fonttype": "none", "text.color": _INK, "axes.edgecolor": _RULE, "axes.labelcolor": _INK}
_TICKS = {"xtick.color": _INK, "ytick.color": _INK, "font.size": 10, "text.parse_math": False}


def curves(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Draw lines over epochs.

    Args:
        title: What the picture shows, for those who do not see it.
        lines: Per name, its points: epoch and value.

    Returns:
        The element ``svg``, without a style sheet or a script.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("Curves need matplotlib: pip install 'frostline[plot]'.") from None
    settings: Any = _SETTINGS | _TICKS | {"svg.hashsalt": title}
    with rc_context(settings):
        figure = Figure(figsize=(6.2, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for place, (name, points) in enumerate(lines.items()):
            style: Any = {"color": _LINES[place % 4], "linestyle": _DASHES[place % 4], "linewidth": 2}
            marker = "o" if len(points) <= 20 else ""
            axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=4, **style)
        axes.set_xlabel("epoch")
        axes.grid(color=_RULE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="best")
        written = io.BytesIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _restyled(written.getvalue(), title)


def _restyled(text: bytes, title: str) -> Markup:
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
                element.set(name.strip(), _COLOURS.get(value.strip(), value.strip()))
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": title, "stroke-linejoin": "round", "class": "chart"}
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - matplotlib escapes its texts
