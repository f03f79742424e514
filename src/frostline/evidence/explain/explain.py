"""Explaining a message that somebody met because something is frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.anatomy.wrappers import refuse_no_module
from frostline.base.json import picked
from frostline.evidence.checks.findings import PAGE, some
from frostline.evidence.explain.known_messages import MESSAGES, Message

if TYPE_CHECKING:
    from torch import nn

MESSAGES_PAGE = "docs/messages.md"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_WORDS = re.compile(r"[\w.]+")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a message means.

    Attributes:
        phrase: The part by which it was recognised.
        source: The library that says it.
        cause: What it means.
        mend: What to do.
        slug: The check that finds the same fault; ``""`` where there is none.
        units: The units of the model at hand that are concerned.
        names: Its parameters that are concerned.
    """

    phrase: str
    source: str
    cause: str
    mend: str
    slug: str = ""
    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        """Where the docs say more."""
        return f"{PAGE}#{self.slug}" if self.slug else MESSAGES_PAGE

    def to_dict(self) -> dict[str, Any]:
        """The explanation as plain values."""
        return picked(self, "phrase", "source", "cause", "mend", "slug", "units", "names", "link")

    def __str__(self) -> str:
        where = f"\n  In this model: {some(self.units)}." if self.units else ""
        return f"{self.source}: {self.phrase}\n  {self.cause}\n  {self.mend}{where}\n  See {self.link}"


def explain(error_or_message: BaseException | str, model: nn.Module | None = None) -> Explanation | None:
    """Say what a message means that torch, transformers, accelerate or PEFT gave because something is frozen.

    Args:
        error_or_message: The error, or the text of a message, or a part of it.
        model: The model it was about: the parameters that the message names, or that the check for the same
            fault finds, are then named with their units.

    Returns:
        The explanation; None for a message that is not known. `frostline.check` may find its cause in the model all the
        same; the messages that are known are in docs/messages.md.

    Raises:
        ModelError: If the model is none.
    """
    if model is not None:
        refuse_no_module(model)
    text = _plain(str(error_or_message))
    message = next((one for one in MESSAGES if _is_in(one, text)), None)
    if message is None:
        return None
    names, units = ((), ()) if model is None else _concerned(model, message, str(error_or_message))
    return Explanation(message.phrase, message.source, message.cause, message.mend, message.slug, units, names)


def _plain(text: str) -> str:
    """A message without colours, quotes of code and line breaks, in lower case."""
    return " ".join(_COLOURS.sub("", text).replace("`", "").lower().split())


def _is_in(message: Message, text: str) -> bool:
    return any(_plain(phrase) in text for phrase in (message.phrase, *message.also))


def _concerned(model: nn.Module, message: Message, text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters that a message names, or that the check of the same fault finds; and their units."""
    from frostline.evidence.checks.case import Case
    from frostline.evidence.checks.run import check

    case = Case(model)
    words = set(_WORDS.findall(text))
    names = tuple(name for name in case.parameters if name in words)
    if not names and message.slug:
        names = tuple(name for finding in check(model) if finding.slug == message.slug for name in finding.names)
    return names, tuple(unit.name for unit in case.units_of(names)) if names else ()
