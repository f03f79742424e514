"""The way back: a selector for a given set of parameters, as short as the language allows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from frostline.anatomy.modelmap import ModelMap, Unit

_DETOUR = 2


def describe(anatomy: ModelMap, names: Iterable[str]) -> str:
    """Write the selector that means just these parameters.

    Units that are wholly among them are named as units (``embeddings, layers[:4]``), then kinds (``norms``), the rest
    by name. Where it is shorter, the selector takes away instead: ``layers[:8], ~bias``, ``all, ~adapters``.

    Args:
        anatomy: The model's anatomy.
        names: Parameter names, tied tensors under their first name.

    Returns:
        The selector; ``""`` for no names at all.
    """
    wanted = frozenset(names)
    if not wanted:
        return ""
    everything = frozenset(anatomy.parameter_names)
    ways: list[list[str]] = [_added(anatomy, wanted)]
    if wanted != everything:
        ways.append(["all", *(f"~{term}" for term in _added(anatomy, everything - wanted))])
    for kind, members in anatomy.kinds.items():
        # All units that are there but for the kind: name them whole, then take the kind away.
        touched = [unit for unit in anatomy.units if not wanted.isdisjoint(unit.parameter_names)]
        whole = frozenset(name for unit in touched for name in unit.parameter_names)
        if whole - members == wanted and whole & members:
            ways.append([*_added(anatomy, whole), f"~{kind}"])
    # What is added up reads more easily than what is taken away; so that has to be shorter by some terms.
    ways.sort(key=lambda terms: len(terms) + _DETOUR * any(term.startswith("~") for term in terms))
    return ", ".join(ways[0])


def shortened(selector: str) -> str:
    """Leave out what is beyond six terms of a selector, for a sentence."""
    terms = selector.split(", ")
    return selector if len(terms) <= 6 else f"{', '.join(terms[:5])} and {len(terms) - 5} more"


def _added(anatomy: ModelMap, wanted: frozenset[str]) -> list[str]:
    """Terms that add up to the names: units, then kinds, then names."""
    with_parameters = [unit for unit in anatomy.units if unit.parameter_names]
    full = [unit for unit in with_parameters if wanted.issuperset(_meant(anatomy, unit))]
    if full == with_parameters:
        return ["all"]
    if full and full == [unit for unit in with_parameters if unit.kind != "head"]:
        terms = ["backbone"]
    else:
        terms = list(_unit_terms(anatomy, with_parameters, full))
    rest = wanted.difference(*(unit.parameter_names for unit in full))
    # A unit that only goes by a word which means other units as well is named by its parameters.
    rest |= _unnamed(with_parameters, full)
    for kind, members in sorted(anatomy.kinds.items(), key=lambda pair: -len(pair[1])):
        if members and wanted.issuperset(members) and len(members & rest) > 1:
            terms.append(kind)
            rest -= members
    return terms + [literal(name) for name in anatomy.parameter_names if name in rest]


def _meant(anatomy: ModelMap, unit: Unit) -> Iterator[str]:
    """What a unit's own term selects; of a layer, what it shares with another layer as well."""
    yield from unit.parameter_names
    if unit.kind == "layer":
        homes = ((name, anatomy.unit_of[name]) for name in unit.alias_names)
        firsts = {name: group[0] for group in anatomy.tied for name in group}
        yield from (firsts[name] for name, home in homes if home.kind == "layer")


def _unit_terms(anatomy: ModelMap, units: Sequence[Unit], full: Sequence[Unit]) -> Iterator[str]:
    lengths = {stack.name: len(stack) for stack in anatomy.stacks}
    said: set[str] = set()
    for (kind, stack), group in groupby(full, key=lambda unit: (unit.kind, unit.stack)):
        if kind == "layer":
            word = f"{stack}.layers".lstrip(".")
            for first, last in _runs([unit.index for unit in group if unit.index is not None]):
                yield word + _brackets(first, last, lengths[stack])
        elif _all_of_kind(kind, units, full):
            if kind not in said:
                yield kind
            said.add(kind)
        elif stack:
            yield f"{stack}.{kind}"


def _all_of_kind(kind: str, units: Iterable[Unit], full: Sequence[Unit]) -> bool:
    return all(unit in full for unit in units if unit.kind == kind)


def _unnamed(units: Sequence[Unit], full: Sequence[Unit]) -> frozenset[str]:
    return frozenset(
        name
        for unit in full
        if unit.kind != "layer" and not unit.stack and not _all_of_kind(unit.kind, units, full)
        for name in unit.parameter_names
    )


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


def literal(name: str) -> str:
    """Write a name as a term; one that the language would read otherwise goes as a regular expression."""
    plain = re.fullmatch(r"[\w.]+\.[\w.]+", name) and not name.endswith(".layers")
    if plain:
        return name
    # A comma would end the term, and a space at the name's end would be lost.
    return "re:" + re.escape(name).replace(",", r"\,").replace(r"\ ", r"\x20")
