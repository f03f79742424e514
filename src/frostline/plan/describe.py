"""The way back: a selector for a given set of parameters, as short as units allow."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from frostline.anatomy.modelmap import ModelMap, Unit


def describe(anatomy: ModelMap, names: Iterable[str]) -> str:
    """Write the selector that means just these parameters.

    Units that are wholly among them are named as units (``embeddings, layers[:4]``), the rest by name.

    Args:
        anatomy: The model's anatomy.
        names: Parameter names, tied tensors under their first name.

    Returns:
        The selector; ``""`` for no names at all.
    """
    wanted = set(names)
    full = [unit for unit in anatomy.units if unit.parameter_names and wanted.issuperset(unit.parameter_names)]
    with_parameters = [unit for unit in anatomy.units if unit.parameter_names]
    if not wanted:
        return ""
    if full == with_parameters:
        return "all"
    if full and full == [unit for unit in with_parameters if unit.kind != "head"]:
        terms = ["backbone"]
    else:
        terms = list(_unit_terms(anatomy, full))
    covered = {name for unit in full for name in unit.parameter_names}
    terms += [_literal(name) for name in anatomy.parameter_names if name in wanted - covered]
    return ", ".join(terms)


def _unit_terms(anatomy: ModelMap, units: Sequence[Unit]) -> Iterator[str]:
    for (kind, stack), group in groupby(units, key=lambda unit: (unit.kind, unit.stack)):
        if kind != "layer":
            yield kind
            continue
        length = next(len(found) for found in anatomy.stacks if found.name == stack)
        word = f"{stack}.layers".lstrip(".")
        for first, last in _runs([unit.index for unit in group if unit.index is not None]):
            yield word + _brackets(first, last, length)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of consecutive numbers."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield members[0], members[-1]


def _brackets(first: int, last: int, length: int) -> str:
    if first == last:
        return f"[{first}]"
    start = "" if first == 0 else str(first)
    stop = "" if last == length - 1 else str(last + 1)
    return f"[{start}:{stop}]"


def _literal(name: str) -> str:
    """A name as a term; one that the language would read otherwise goes as a regular expression."""
    plain = re.fullmatch(r"[\w.]+\.[\w.]+", name) and not name.endswith(".layers")
    if plain:
        return name
    # A comma would end the term, and a space at the name's end would be lost.
    return "re:" + re.escape(name).replace(",", r"\,").replace(r"\ ", r"\x20")
