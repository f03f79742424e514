"""The page of architectures, made from the zoo: ``python -m tests.zoo.page > docs/architectures.md``."""

from __future__ import annotations

import argparse
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import transformers

import frostline as fl
from frostline.checkpoints.quiet_loading import quiet
from tests.zoo.admitting import Survey, survey
from tests.zoo.build import CANNOT_BUILD, build, model_types
from tests.zoo.pooling import pooled_position
from tests.zoo.task_page import BEGIN, task_part
from tests.zoo.traits import NEEDS_TRAIN_MODE, PADDING_SHOWS

if TYPE_CHECKING:
    from frostline.engine.selfcheck.result import SelfCheck

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"

_HEAD = """\
# Architectures

Every type of model that transformers {version} registers for sequence classification, as Frostline reads it. The page
is made by a command (`make architectures`) from tiny models of each type, mostly of four layers; a real one has more of
them, and is read the same way. On each of them the tests hold that

- every parameter and buffer is in exactly one unit, and units come in the order in which a real forward runs them;
- `embeddings`, `layers[…]`, `head`, `backbone` and `all` select what their names say;
- with `freeze="backbone"`, a step of the optimizer moves the head and leaves every other tensor bit-identical.

**Units** are listed from the input to the logits, with the stack's name before a layer where there are several.
**Stack** is the path of the list of layers. **Pooled** says which positions of the last layer's output the logits
depend on, found by their gradients.

| type | class | units | stack | pooled | notes |
| --- | --- | --- | --- | --- | --- |
"""
_FOOT = """
{built} of the {types} types are built and tested. Of the rest:

{missing}
"""
_ENGINE = """
## What the engine does for them

What the self-check admits for the same tiny models. The tests hold that what is admitted gives the plain forward's
logits and gradients on other batches as well: of other lengths, with other padding, with another number of texts.

**Padding-free**: what runs on real tokens only. With `layers` it is whole layers, padded for attention alone; with
`all but mixers` the modules that mix tokens run padded, too. **Replay**: whether the model runs from what is stored
for a unit. Every unit with layers of the text beneath it is tried. Where
what is stored is for the unit below instead, no layer runs again either, and dropout on the way to the head acts; what
dropout is left out, the page on the engine [tells](engine.md#dropout). `with padding` stands where a text's stored
values hold for one length of padding only. **One position**: the one position of each text that the last layer is run
for.

| type | padding-free | replay | one position |
| --- | --- | --- | --- |
"""
_PACKING = {"attention": "layers", "modules": "all but mixers"}


def is_of_this_version() -> bool:
    """Whether the page tells of the version of transformers that is installed."""
    return f"Every type of model that transformers {_version()} registers" in PAGE.read_text(encoding="utf-8")


def _version() -> str:
    return ".".join(transformers.__version__.split(".")[:2])


def row(model_type: str) -> str:
    """The line of one type."""
    specimen = build(model_type)
    anatomy = fl.ModelMap.of(specimen.model)
    pooled = pooled_position(specimen, anatomy)
    cells = (
        f"`{model_type}`",
        anatomy.model_class,
        ", ".join(_units(anatomy)),
        "<br>".join(_stacks(anatomy)),
        pooled,
        "<br>".join(_notes(specimen.model_type, anatomy, _unreached(specimen.model, anatomy))),
    )
    return f"| {' | '.join(cells)} |"


def engine_row(found: Survey) -> str:
    """The line of one type in the table of what the engine does."""
    whole = found.checks[None]
    packing = whole.paths.packing
    cells = (
        f"`{found.specimen.model_type}`",
        _PACKING[packing] if packing is not None else _refused(whole, "padding-free"),
        _replay(found),
        whole.paths.single or _refused(whole, "one position"),
    )
    return f"| {' | '.join(cells)} |"


def _replay(found: Survey) -> str:
    depths = {boundary: check for boundary, check in found.checks.items() if boundary is not None}
    refused = {boundary: _refused(check, "replay") for boundary, check in depths.items() if check.boundary is None}
    if len(refused) == len(depths):
        return "<br>".join(dict.fromkeys(refused.values()))
    served = {boundary: check.paths for boundary, check in depths.items() if check.boundary == boundary}
    padded = [boundary for boundary, paths in served.items() if paths.whole]
    said = ["yes"]
    if padded:
        said = ["yes, with padding" if len(padded) == len(served) else f"yes; with padding: {', '.join(padded)}"]
    if any(own.admitted and "is left out" in own.how for check in depths.values() for own in check.checks):
        said.append("dropout between frozen layers is left out")
    said += [f"{boundary}: {reason}" for boundary, reason in refused.items()]
    for boundary, check in depths.items():
        if check.boundary not in {None, boundary}:
            said.append(f"{boundary}: from what is stored for {check.boundary}")
    return "<br>".join(said)


def _refused(check: SelfCheck, path: str) -> str:
    """Why a path is not admitted, without the figures of the tiny model."""
    how = next(own.how for own in check.checks if own.path in {path, "all"} and not own.admitted)
    reason = re.sub(r"^at [^:]+: |^at .+(?= no layer )", "", how).strip()
    failed = re.match(r"its code fails: (\w+)", reason)
    return f"no, its code fails ({failed[1]})" if failed else f"no, {reason}"


def _units(anatomy: fl.ModelMap) -> list[str]:
    found: list[str] = []
    for (stack, kind), group in groupby(anatomy.units, key=lambda unit: (unit.stack, unit.kind)):
        units = list(group)
        if kind == "layer" and len(units) > 1:
            found.append(f"{stack} layers {units[0].index}-{units[-1].index}".lstrip())
        else:
            found.append(units[0].name)
    return found


def _stacks(anatomy: fl.ModelMap) -> list[str]:
    found = []
    for stack in anatomy.stacks:
        parent = stack.paths[0].rpartition(".")[0]
        names = [path.removeprefix(f"{parent}.") for path in stack.paths]
        path = stack.paths[0] if len(names) == 1 else f"{parent}.({', '.join(names)})"
        found.append(f"{stack.name}: `{path}`" if stack.name else f"`{path}`")
    return found


def _unreached(model: object, anatomy: fl.ModelMap) -> list[str]:
    """Units that no text's logits depend on, by the gradients that `pooled_position` left."""
    from torch import nn

    assert isinstance(model, nn.Module)
    # Behind a reversible layer gradients go past what is watched; there a unit counts as reached.
    return [
        unit.name
        for unit in anatomy.units
        if unit.parameter_names
        and all(
            (gradient := model.get_parameter(name).grad) is None or not gradient.any() for name in unit.parameter_names
        )
    ]


def _notes(model_type: str, anatomy: fl.ModelMap, unreached: list[str]) -> list[str]:
    notes = [note.rstrip(".") for note in anatomy.notes]
    lengths = {len(group) for group in anatomy.tied}
    if anatomy.tied:
        shared = ", ".join(unit.name for unit in anatomy.units if unit.shared)
        tensors = "one tensor" if len(anatomy.tied) == 1 else f"{len(anatomy.tied)} tensors"
        notes.append(f"{tensors} under {lengths.pop()} names ({shared}): freezing one freezes all")
    if any(name.startswith("vision ") for name in unreached):
        notes.append("no text reaches the image tower")
    rest = [name for name in unreached if not name.startswith("vision ")]
    if rest:
        notes.append(f"the logits of a text do not depend on {', '.join(rest)}")
    if model_type in PADDING_SHOWS:
        notes.append(f"padding shows in the logits: {PADDING_SHOWS[model_type]}")
    if model_type in NEEDS_TRAIN_MODE:
        notes.append(
            'reversible layers: frozen ones need `frozen_mode="train"`, and none gets a gradient while the embeddings '
            "are frozen"
        )
    return notes


def page() -> str:
    """The part of the page on units, stacks and pooling."""
    with quiet():
        rows = [row(model_type) for model_type in model_types() if model_type not in CANNOT_BUILD]
    for model_type, reason in CANNOT_BUILD.items():
        rows.append(f"| `{model_type}` | not built | | | | {reason} |")
    rows.sort(key=lambda line: line.replace("`", ""))
    missing = "\n".join(f"- `{model_type}`: {reason}." for model_type, reason in CANNOT_BUILD.items())
    foot = _FOOT.format(built=len(rows) - len(CANNOT_BUILD), types=len(rows), missing=missing)
    return _HEAD.format(version=_version()) + "\n".join(rows) + "\n" + foot


def engine_part() -> str:
    """The part of the page on the engine."""
    with quiet():
        rows = [
            engine_row(survey(model_type, every_depth=True))
            for model_type in model_types()
            if model_type not in CANNOT_BUILD
        ]
    rows.sort(key=lambda line: line.replace("`", ""))
    return _ENGINE + "\n".join(rows) + "\n"


def parts(text: str) -> tuple[str, str, str]:
    """A page, cut where its parts on the engine and on tasks begin."""
    place, tasks = text.index(_ENGINE), text.index(BEGIN)
    return text[:place], text[place:tasks], text[tasks:]


def rows_of(text: str) -> dict[str, str]:
    """Per type of model, its line in a part of a page."""
    return {found[1]: found[0] for found in re.finditer(r"^\| `([^`]+)` \|.*\|$", text, re.MULTILINE)}


def main() -> int:
    """Print the page; or with ``--check``, compare it with the one in docs/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page in docs/ is stale")
    made = page() + engine_part() + task_part()
    if not parser.parse_args().check:
        sys.stdout.write(made)
        return 0
    if made != PAGE.read_text(encoding="utf-8"):
        sys.stderr.write("docs/architectures.md is stale: run make architectures\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
