"""Results in words."""

from __future__ import annotations

from typing import Any


def line(result: dict[str, Any]) -> str:
    """A result in one line, as ``make bench`` prints it."""
    ratio, ours, theirs = result["ratio"], result["ours"], result["theirs"]
    parts = [
        f"{result['row']:<13} {spread(ratio):>20}",
        f"target {result['target']}, {'met' if result['met'] else 'missed'}" if result["target"] else "no target",
        seconds(result, " against "),
        " / ".join(memory(side) for side in (ours, theirs) if side),
        f"accuracy {' / '.join(accuracy(side) for side in (ours, theirs) if side)}",
        f"{result['of_limit']['median']:.1f} x the limit" if result["of_limit"] else "no limit reckoned",
        f"{result['rows']:,} rows of {result['source']}",
    ]
    return "  ".join(parts)


def spread(figures: dict[str, float]) -> str:
    """A median with the least and the greatest figure."""
    return "{median:.2f} ({least:.2f}–{most:.2f})".format(**figures)


def accuracy(side: dict[str, Any] | None) -> str:
    """A side's accuracy with three decimals, else its loss, else a dash."""
    if side is not None and side.get("loss") is not None:
        return f"loss {side['loss']:.3f}"
    return "–" if side is None or side["accuracy"] is None else f"{side['accuracy']:.3f}"


def seconds(result: dict[str, Any], between: str) -> str:
    """Both sides' seconds; with the rate per token where nothing but a pass over the tokens is timed."""
    text = between.join(f"{side['seconds']:.2f} s" for side in (result["ours"], result["theirs"]) if side)
    if result["figure"] == "share":
        text += f" ({result['tokens'] / result['ours']['seconds']:,.0f} tokens/s)"
    return text


def memory(side: dict[str, Any] | None) -> str:
    """A side's rise of the peak memory, or a dash."""
    return "–" if side is None or side["rise_bytes"] is None else f"{side['rise_bytes'] / 2**20:.0f} MiB"
