"""A selector compiled for one model: for every parameter, whether it is meant and which term decided."""

from __future__ import annotations

import difflib
import fnmatch
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from frostline.anatomy.modelmap import ModelMap
from frostline.base.json import picked
from frostline.base.logging import get_logger
from frostline.base.modules import beginnings
from frostline.errors import SelectorError
from frostline.plan.selectors import UNIT_WORDS, Term, join, marked, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from frostline.anatomy.kinds import Kind


@dataclass(frozen=True, slots=True)
class Decision:
    """What a selector says of one parameter.

    Attributes:
        name: The parameter, as ``named_parameters()`` prints it.
        selected: Whether it is meant.
        term: The term that decided, as written (``~`` included); None where no term matches the parameter.
    """

    name: str
    selected: bool
    term: str | None

    def to_dict(self) -> dict[str, Any]:
        """The decision as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A selector, compiled for one model.

    Attributes:
        expression: The selector as written.
        decisions: One per parameter, in the order of ``named_parameters()``.
    """

    expression: str
    decisions: tuple[Decision, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are meant, in the order of ``named_parameters()``."""
        return tuple(decision.name for decision in self.decisions if decision.selected)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return picked(self, "expression", "decisions")

    def __str__(self) -> str:
        width = max((len(decision.name) for decision in self.decisions), default=0)
        lines = [f"{self.expression!r} selects {len(self.names)} of {len(self.decisions)} parameters"]
        for decision in self.decisions:
            sign = "+" if decision.selected else " "
            lines.append(f"{sign} {decision.name:<{width}}  {decision.term or '-'}")
        return "\n".join(lines)


def select(model: nn.Module, selectors: str | Iterable[str]) -> Recipe:
    """Say, for every parameter of a model, whether a selector means it and which term decided.

    Args:
        model: The model.
        selectors: A text in the selector language, or several that are joined by commas.

    Raises:
        SelectorError: If the text cannot be read, a term matches nothing, or two terms disagree on
            one tensor that has several names.
    """
    return compile_selector(model, ModelMap.of(model), join(selectors))


def compile_selector(model: nn.Module, anatomy: ModelMap, expression: str) -> Recipe:
    """Like `select`, for a model whose anatomy is already read."""
    matcher = _Matcher(model, anatomy)
    deciding: dict[str, Term] = {}
    for term in parse(expression):
        matched = matcher.names(term)
        if not matched:
            raise SelectorError(matcher.nothing_matched(expression, term))
        deciding |= dict.fromkeys(matched, term)
    _settle_ties(anatomy, deciding, expression)
    return Recipe(
        expression,
        tuple(
            Decision(
                name,
                selected=name in deciding and not deciding[name].takes_away,
                term=expression[slice(*deciding[name].span)] if name in deciding else None,
            )
            for name, _ in model.named_parameters()
        ),
    )


def _settle_ties(anatomy: ModelMap, deciding: dict[str, Term], expression: str) -> None:
    """Let the names of one tensor share one decision; refuse terms that disagree."""
    for group in anatomy.tied:
        by_name = {name: deciding[name] for name in group if name in deciding}
        if not by_name:
            continue
        adds = next((name for name, term in by_name.items() if not term.takes_away), None)
        takes = next((name for name, term in by_name.items() if term.takes_away), None)
        if adds and takes:
            first, second = (by_name[name].span for name in (adds, takes))
            raise SelectorError(
                f"In {expression!r}, '{expression[slice(*first)]}' takes {adds} in and "
                f"'{expression[slice(*second)]}' leaves {takes} out, but both are one tensor (tied weights).\n"
                "Name the tensor in one of the two only."
            )
        deciding[group[0]] = max(by_name.values(), key=lambda term: term.span)


class _Matcher:
    """Finds the parameter names that a term means."""

    def __init__(self, model: nn.Module, anatomy: ModelMap) -> None:
        self._model = model
        self._anatomy = anatomy
        # Every name of a tied tensor can be written; units and kinds speak of the first one only.
        self._names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        self._modules = dict(model.named_modules(remove_duplicate=False))

    def names(self, term: Term) -> list[str]:
        match term.kind:
            # A word of the language that means nothing in this model may be the name of one of its modules.
            case "unit":
                return list(self._unit(term.text)) or self._named(term.text)
            case "layers":
                return list(self._layers(term)) or self._named(term.text)
            case "kind":
                return sorted(self._anatomy.kinds[cast("Kind", term.text)]) or self._named(term.text)
            case "regex":
                pattern = term.pattern
                return [name for name in self._names if pattern and any(map(pattern.fullmatch, self._both(name)))]
            case "glob":
                return self._glob(term.text)
            case "name":
                return self._named(term.text)

    def _named(self, text: str) -> list[str]:
        """Parameters by their name or that of a module that holds them; a wrapper's part of it may be left out."""
        for full in dict.fromkeys((text, f"{self._anatomy.prefix}{text}")):
            if names := [name for name in self._names if name == full or name.startswith(f"{full}.")]:
                return names
        stack, _, word = text.rpartition(".")
        return [
            name
            for unit in self._anatomy.units
            if stack and unit.kind == word and unit.kind != "layer" and unit.stack == stack
            for name in unit.parameter_names
        ]

    def _unit(self, word: str) -> Iterator[str]:
        for unit in self._anatomy.units:
            if word in (unit.kind, "all") or (word == "backbone" and unit.kind != "head"):
                yield from unit.parameter_names

    def _both(self, name: str) -> tuple[str, ...]:
        """A name as it is, and without what wrappers put before it."""
        return tuple(dict.fromkeys((name, name.removeprefix(self._anatomy.prefix))))

    def _layers(self, term: Term) -> Iterator[str]:
        stacks = {stack.name: len(stack) for stack in self._anatomy.stacks}
        wanted = term.stack or ""
        if wanted not in stacks:
            return
        numbers = range(stacks[wanted])
        index = term.index
        if isinstance(index, int):
            chosen = {number for number in numbers if index in (number, number - len(numbers))}
        else:
            chosen = set(numbers[index or slice(None)])
            self._say_beyond(term, len(numbers), len(chosen))
        for unit in self._anatomy.units:
            if unit.kind == "layer" and unit.stack == wanted and unit.index in chosen:
                yield from unit.parameter_names
                # What two layers share is meant with either; a tensor shared with another unit stays with that one.
                yield from (name for name in unit.alias_names if self._anatomy.unit_of[name].kind == "layer")

    def _say_beyond(self, term: Term, layers: int, chosen: int) -> None:
        """Say where a slice names layers that are not there: it was written for a deeper model."""
        bounds = (term.index.start, term.index.stop) if isinstance(term.index, slice) else ()
        if chosen and any(bound is not None and not -layers <= bound <= layers for bound in bounds):
            means = f"all {layers}" if chosen == layers else f"{chosen}"
            stack = f"{self._anatomy.model_class}'s {term.stack or ''}".rstrip()
            get_logger().warning(
                "%s reaches beyond %s layers, 0 to %d: it means %s of them.", term.text, stack, layers - 1, means
            )

    def _glob(self, text: str) -> list[str]:
        pattern = re.compile(fnmatch.translate(text))
        modules = {path for path in self._modules if path and any(map(pattern.fullmatch, self._both(path)))}
        return [
            name
            for name in self._names
            if any(map(pattern.fullmatch, self._both(name))) or not modules.isdisjoint(beginnings(name))
        ]

    def nothing_matched(self, expression: str, term: Term) -> str:
        """The message for a term that matches nothing: what was meant instead, as far as one can tell."""
        head = (
            f"The selector {marked(expression, term.span)} matches nothing at the mark in {self._anatomy.model_class}"
        )
        if term.kind == "layers":
            return f"{head}: {self._layers_hint(term)}"
        known = [
            *(word for word in UNIT_WORDS if any(self._unit(word))),
            *(word for word, names in self._anatomy.kinds.items() if names),
            *(f"{stack.name}.layers".lstrip(".") for stack in self._anatomy.stacks),
            *(path for path in self._modules if path),
            *self._names,
        ]
        # A name of another task class or wrapper often differs in its first parts only.
        tails = [name for name in known if name.endswith(f".{term.text}")]
        near = list(dict.fromkeys([*tails[:2], *difflib.get_close_matches(term.text, known, n=3, cutoff=0.6)]))[:3]
        if near:
            return f"{head}.\nNearest names: {', '.join(near)}."
        units = dict.fromkeys(unit.kind if unit.kind != "layer" else "layers[:]" for unit in self._anatomy.units)
        return f"{head}.\nIts units: {', '.join(units)}; --names lists every parameter."

    def _layers_hint(self, term: Term) -> str:
        stacks = self._anatomy.stacks
        if not stacks:
            return "no stack of layers was found in it.\nName its modules instead, with globs if need be."
        names = {stack.name: stack for stack in stacks}
        if (term.stack or "") not in names:
            written = term.text[term.text.index("layers") :]
            options = ", ".join(f"{stack.name}.{written}".lstrip(".") for stack in stacks)
            if term.stack is None:
                return f"it has {len(stacks)} stacks.\nSay which: {options}."
            return f"it has no stack '{term.stack}'.\nWrite {options}."
        stack = names[term.stack or ""]
        return f"its layers are 0 to {len(stack) - 1}.\nName one of them, or a slice such as layers[-2:]."
