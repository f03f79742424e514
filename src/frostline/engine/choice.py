"""Where the frozen part's activations are kept: memory, disk or nowhere, by what each would cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from frostline.engine.settings import EngineSettings

Where = Literal["memory", "disk", "nowhere"]


@dataclass(frozen=True, slots=True)
class Work:
    """What is ahead.

    Attributes:
        rows: Different texts that training goes over.
        tokens: Their tokens.
        passes: How often each of them is run, over all epochs.
        store_bytes: What storing them takes.
    """

    rows: int
    tokens: int
    passes: float
    store_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why."""

    where: Where
    why: str


def choose(settings: EngineSettings, work: Work, free_memory: int, free_disk: int) -> Choice:
    """Choose where activations are kept."""
    if settings.store == "off":
        return Choice("nowhere", "switched off")
    if settings.store != "auto":
        return Choice(settings.store, "as asked for")
    if work.passes <= 1:
        return Choice("nowhere", "every text is run once")
    if work.store_bytes <= settings.budget(free_memory):
        return Choice("memory", "fits")
    if work.store_bytes <= settings.budget(free_disk):
        return Choice("disk", "does not fit in memory")
    return Choice("nowhere", "fits nowhere")
