"""The tower as a small static picture, which needs no script: for notebooks, model cards, papers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from frostline.base.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WIDTH, _MARGIN, _GAP, _TITLE = 340, 8, 12, 20
_COLUMN = 420  # pixels that the heaviest column comes to about
_LEAST, _LEAST_FOLDED = 22, 4
_FILLS = {
    "frozen": ("#cfe5f6", "#0a3757"),
    "trains": ("#f5b870", "#3a1d00"),
    "new": ("#e9814a", "#2b0e00"),
    "partly": ("url(#frostline-partly)", "#0a3757"),
    "empty": ("none", "currentColor"),
    "level-0": ("#cfe5f6", "#0a3757"),
    "level-1": ("#fbe8cf", "#1d1206"),
    "level-2": ("#f8cf9a", "#1d1206"),
    "level-3": ("#f3ad64", "#1d1206"),
    "level-4": ("#e9814a", "#1d1206"),
    "level-5": ("#c4532a", "#ffffff"),
    "level-new": ("#e9814a", "#2b0e00"),
    "level-bad": ("#8c1f5b", "#ffffff"),
    "level-none": ("none", "currentColor"),
}
_PATTERN = Markup(
    '<defs><pattern id="frostline-partly" width="18" height="18" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="18" height="18" fill="#cfe5f6"/>'
    '<rect width="6" height="18" fill="#f5b870"/></pattern></defs>'
)
# Alone in a file, as an image of a README, it follows the reader's colours.
_STYLE = Markup("<style>svg{color:#16202a}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>")


@dataclass(frozen=True, slots=True)
class _Block:
    """Equal neighbours, drawn as one."""

    name: str
    look: str
    text: str
    size: int
    units: int

    def height(self, scale: float) -> float:
        """Pixels."""
        least = _LEAST_FOLDED * self.units if self.units > 1 else 0
        return max(_LEAST, least, self.size * scale)


def tower_svg(
    tower: Mapping[str, Any], marks: Sequence[Mapping[str, Any]] | None = None, *, alone: bool = False
) -> Markup:
    """Draw a tower.

    Args:
        tower: What ``Tower.to_dict()`` gives.
        marks: Per unit, what became of it: its ``level`` and ``text``; None to show what trains.
        alone: Whether it is a file of its own, rather than a part of a page.

    Returns:
        The element ``svg``; texts are escaped.
    """
    looks = marks if marks is not None else [_look(unit) for unit in tower["units"]]
    pairs = list(zip(tower["units"], looks, strict=True))
    names = list(dict.fromkeys(unit["stack"] for unit, _ in pairs if unit["kind"] == "layer"))
    columns = [pairs] if len(names) < 2 else [[pair for pair in pairs if _is_of(pair[0], name)] for name in names]
    rest = [] if len(names) < 2 else [pair for pair in pairs if not any(_is_of(pair[0], name) for name in names)]
    top = [pair for pair in rest if pair[0]["kind"] != "embeddings"]
    base = [pair for pair in rest if pair[0]["kind"] == "embeddings"]
    heaviest = max((sum(_size(unit) for unit, _ in column) for column in columns), default=0)
    scale = _COLUMN / heaviest if heaviest else 0.0
    width = _MARGIN * 2 + len(columns) * _WIDTH + (len(columns) - 1) * _GAP
    parts: list[Markup] = []
    height = float(_MARGIN)
    height = _draw(parts, top, _MARGIN, height, width - 2 * _MARGIN, scale)
    tall = max(sum(block.height(scale) + 2 for block in _blocks(column)) for column in columns)
    for place, column in enumerate(columns):
        own = sum(block.height(scale) + 2 for block in _blocks(column))
        _draw(parts, column, _MARGIN + place * (_WIDTH + _GAP), height + tall - own, _WIDTH, scale)
    height = _draw(parts, base, _MARGIN, height + tall, width - 2 * _MARGIN, scale) + _MARGIN
    label = escape(printable(f"{tower['model_class']}: {'; '.join(f'{b.name} {b.text}' for b in _blocks(pairs))}"))
    opening = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" '
        'aria-label="{label}" font-family="system-ui, sans-serif" font-size="12">'
    ).format(w=width, h=round(height), label=label)
    return Markup("").join([opening, _STYLE if alone else Markup(""), _PATTERN, *parts, Markup("</svg>")])


def _is_of(unit: Mapping[str, Any], stack: str) -> bool:
    return unit["stack"] == stack and not (stack == "" and unit["kind"] == "head")


def _size(unit: Mapping[str, Any]) -> int:
    size = 0
    for parameter in unit["parameters"]:
        count = 1
        for side in parameter["shape"]:
            count *= side
        size += count
    return size


def _look(unit: Mapping[str, Any]) -> dict[str, str]:
    flags = {parameter["trains"] for parameter in unit["parameters"]}
    is_new = any(parameter["origin"] == "new" for parameter in unit["parameters"])
    if not flags:
        return {"level": "empty", "text": ""}
    if flags == {False}:
        return {"level": "frozen", "text": "frozen"}
    if flags == {True}:
        return {"level": "new", "text": "new, trains"} if is_new else {"level": "trains", "text": "trains"}
    return {"level": "partly", "text": "partly frozen"}


def _blocks(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[_Block]:
    """Blocks from the top down."""

    def key(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[Any, ...]:
        unit, mark = pair
        if unit["kind"] != "layer":
            return (unit["name"],)
        return (unit["stack"], mark["level"], mark["text"], unit["shared"], _size(unit))

    blocks = []
    for _, group in groupby(pairs, key=key):
        run = list(group)
        (lowest, mark), (highest, _) = run[0], run[-1]
        name = lowest["name"]
        if len(run) > 1:
            name = f"{lowest['stack']} layers {lowest['index']}–{highest['index']} × {len(run)}".lstrip()
        shared = ", shared" if lowest["shared"] else ""
        level = str(mark["level"])
        look = level if level in _FILLS else f"level-{level}"
        blocks.append(_Block(name, look, f"{mark['text']}{shared}", sum(_size(unit) for unit, _ in run), len(run)))
    return blocks[::-1]


def _draw(
    parts: list[Markup],
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    left: float,
    top: float,
    width: float,
    scale: float,
) -> float:
    """Draw blocks from a height down; gives the height beneath them."""
    for block in _blocks(pairs):
        height = block.height(scale)
        parts += _shapes(block, left, top, width, height)
        top += height + 2
    return top


def _shapes(block: _Block, left: float, top: float, width: float, height: float) -> Iterator[Markup]:
    fill, ink = _FILLS[block.look]
    dashed = Markup(' stroke="currentColor" stroke-dasharray="3 3"') if fill == "none" else ""
    yield Markup('<rect x="{}" y="{:.1f}" width="{}" height="{:.1f}" rx="4" fill="{}"{}/>').format(
        left, top, width, height, fill, dashed
    )
    middle = top + height / 2 + 4
    text = Markup('<text x="{:.1f}" y="{:.1f}" fill="{}" text-anchor="{}">{}</text>')
    yield text.format(left + 10, middle, ink, "start", printable(block.name))
    about = " · ".join(part for part in (block.text, _short(block.size)) if part)
    yield text.format(left + width - 10, middle, ink, "end", printable(about))


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
