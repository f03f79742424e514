"""The page of figures, made from the kept results: ``python -m benchmarks.page > docs/performance.md``."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, load
from benchmarks.row import Row, all_rows
from benchmarks.wording import accuracy, memory, seconds, spread

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

_HEAD = """\
# Performance

Frostline and what people use today, side by side. `make bench` measures every row on your machine,
`make bench ROW=top2` one of them, `make gpu` those that need a CUDA device, and `make performance` writes this page
from what was measured.

- **Ratio** is the peer's time by Frostline's; for `memory`, Frostline's memory by the peer's; for `prefix`, the share
  of the limit. It is the median over the repeats (3 unless told), with the least and the greatest in brackets.
- The sides run in turn, each time in a fresh process with empty caches. **Time** is the median from texts to a trained
  model: tokenising, filling the store, training, proof. Imports, reading the texts and the model, and a warm-up with a
  tiny model stand outside it; both sides use the same tokenising, seed, learning rate and batch size, and the peer pads
  each batch to its longest text unless the row says otherwise.
- **Accuracy** is measured on the whole test split, by the same plain forwards for both. It differs between the sides
  because frozen layers run without dropout here, and with it under `transformers.Trainer`.
  Other tasks than text classification tell the mean loss of their last ten steps in its place.
- **Memory** is the greatest rise of the process's resident memory in the timed region, above what is resident as it
  begins: libraries, model and texts are not in it, Frostline's store is.
- **Limit** says how many times longer Frostline took than the matrix products that must be computed would take at the
  machine's own rate, measured for each shape right after the run (`torch.mm` or oneDNN's linear map, whichever is
  faster): the frozen prefix once, the suffix three times per epoch, the last layer's queries, output and feed-forward
  on the one position that the head reads. Norms, activations, softmax and optimizer count nothing. For `prefix` it
  counts the frozen layers alone.

| row | work | peer | target | ratio | time | accuracy | memory | limit |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
_FOOT = """
In the last columns Frostline's figure stands before the peer's. fp32 unless a row says bf16.

## What it was measured on

{machines}
"""


def page(folder: Path = FOLDER) -> str:
    """The whole page, from the results of a folder."""
    found = [(row, load(row.name, folder)) for row in all_rows()]
    results = [result for _, result in found if result]
    lines = "".join(f"{_line(row, result)}\n" for row, result in found)
    return _HEAD + lines + _FOOT.format(machines="\n".join(_machines(results)) or "Nothing was measured yet.")


def _line(row: Row, result: dict[str, Any] | None) -> str:
    target = str(row.target) if row.target else "report"
    cells = [f"`{row.name}`", row.work, row.peer, target]
    if result is None:
        return f"| {' | '.join([*cells, 'not measured', '', '', '', ''])} |"
    sides = [side for side in (result["ours"], result["theirs"]) if side]
    verdict = "" if row.target is None else " met" if row.target.met(result["ratio"]["median"]) else " **missed**"
    cells += [
        spread(result["ratio"]) + verdict,
        seconds(result, " / "),
        " / ".join(map(accuracy, sides)),
        " / ".join(map(memory, sides)),
        f"{result['of_limit']['median']:.1f} ×" if result["of_limit"] else "–",
    ]
    return f"| {' | '.join(cells)} |"


def _machines(results: list[dict[str, Any]]) -> list[str]:
    """A line for each machine, set of versions and source of texts, with the rows measured there."""
    named = sorted((_setting(result), result["row"]) for result in results)
    return [
        f"- {setting}: {', '.join(f'`{row}`' for _, row in rows)}"
        for setting, rows in groupby(named, key=lambda one: one[0])
    ]


def _setting(result: dict[str, Any]) -> str:
    machine = result["machine"]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads",
        f"instructions {', '.join(machine['instructions']) or 'not told'}",
        *([machine["gpu"]] if machine["gpu"] else []),
        ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
        f"texts: {result['source']}",
    ]
    return "; ".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
