"""Where the prefix's activations are kept: memory, disk or nowhere, by what each would cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from math import isfinite
from typing import TYPE_CHECKING, Any

from frostline.base.plain_table import plain_table
from frostline.engine.cost.costs import bytes_text, computed_anew, in_memory, on_disk, seconds_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from frostline.engine.cost.costs import Alternative, Measured, Rates, Where, Work
    from frostline.engine.settings import EngineSettings

# A place costs memory or disk, and what is measured varies: it is taken if it saves at least this share of the time.
_MARGIN = 0.1
_PLACES = {"memory": "in memory", "disk": "on disk"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        where: Where activations are kept.
        why: Part of a line: ``10 passes cost 61 s computed anew, 7.2 s stored``.
        budget: The most bytes that the store may take.
        break_even: How many epochs make storing as cheap as computing anew; None where no number does, or nothing
            was measured.
        alternatives: What was weighed; nothing where nothing was measured.
        work: What is ahead.
        measured: What was measured; None where nothing was.
    """

    where: Where
    why: str
    budget: int
    break_even: float | None
    alternatives: tuple[Alternative, ...]
    work: Work
    measured: Measured | None

    def explain(self) -> str:
        """The reckoning, as lines of plain text."""
        return "\n".join(_lines(self))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "where": self.where,
            "why": self.why,
            "budget": self.budget,
            "break_even": self.break_even,
            "alternatives": [alternative.to_dict() for alternative in self.alternatives],
            "work": asdict(self.work),
            "measured": asdict(self.measured) if self.measured is not None else None,
        }


def choose(settings: EngineSettings, work: Work, measured: Measured | None, free_memory: int, free_disk: int) -> Choice:
    """Choose where activations are kept: where the user says, or where it takes the least time within the budgets.

    With several processes, one of them chooses for all: what each measures differs a little.

    Args:
        settings: What the engine may do.
        work: What is ahead.
        measured: What was measured; None where nothing was.
        free_memory: Bytes of free memory on this host.
        free_disk: Bytes of free space in the folder of stores.
    """
    if settings.store == "off" or measured is None:
        why = "switched off" if settings.store == "off" else "what it costs could not be measured"
        return Choice("nowhere", why, 0, None, (), work, measured)
    anew = computed_anew(work, measured)
    places = (in_memory(settings, work, measured, free_memory), on_disk(settings, work, measured, free_disk))
    possible = [place for place in places if place.excluded is None]
    asked = next((place for place in places if place.where == settings.store), None)
    chosen = asked or _cheapest([anew, *possible])
    stored = chosen if chosen is not anew else min(possible or places, key=lambda place: place.seconds)
    return Choice(
        where=chosen.where,
        why=_asked_for(asked) if asked is not None else _why(work, anew, stored, places),
        budget=chosen.budget,
        break_even=_break_even(work, anew, stored),
        alternatives=(anew, *places),
        work=work,
        measured=measured,
    )


def _cheapest(alternatives: Iterable[Alternative]) -> Alternative:
    """The one that takes the least time; of those that take about the same, the first."""

    def better(one: Alternative, other: Alternative) -> Alternative:
        return other if other.seconds < one.seconds * (1 - _MARGIN) else one

    return reduce(better, alternatives)


def _break_even(work: Work, anew: Alternative, stored: Alternative) -> float | None:
    """How many epochs, each with its share of the evaluations, take as long either way."""
    saved = anew.again - stored.again
    return stored.once / saved * work.passes if saved > 0 and isfinite(stored.once) else None


def _asked_for(place: Alternative) -> str:
    if place.bytes <= place.budget:
        return "as asked for"
    return (
        f"as asked for, though {bytes_text(place.bytes)} exceed its {bytes_text(place.budget)}: "
        "what does not fit is computed anew"
    )


def _why(work: Work, anew: Alternative, stored: Alternative, places: Sequence[Alternative]) -> str:
    verb = "costs" if work.passes == 1 and not work.evaluation_passes else "cost"
    why = f"{_ahead(work)} {verb} {seconds_text(anew.seconds)} computed anew, {seconds_text(stored.seconds)} stored"
    if stored.excluded is None and anew.seconds * (1 - _MARGIN) <= stored.seconds < anew.seconds:
        why += ", which saves too little"
    least = min(anew.seconds, stored.seconds) if stored.excluded is None else anew.seconds
    barred = [place for place in places if place.excluded is not None and place.seconds * (1 - _MARGIN) < least]
    reasons = [f"not {_PLACES[place.where]}: {place.excluded}" for place in barred]
    return f"{why} ({'; '.join(reasons)})" if reasons else why


def _ahead(work: Work) -> str:
    passes = "1 pass" if work.passes == 1 else f"{work.passes:.3g} passes"
    if not work.evaluation_passes:
        return passes
    return f"{passes} and {_counted(work.evaluation_passes, 'evaluation')}"


def _lines(choice: Choice) -> Iterator[str]:
    work, measured = choice.work, choice.measured
    if measured is not None:
        yield from _measured_lines(measured)
        yield from _work_lines(work)
        columns = ("where", "once", "in all passes", "together", "size", "at most", "")
        rows = [
            (
                alternative.where,
                seconds_text(alternative.once),
                seconds_text(alternative.again),
                seconds_text(alternative.seconds),
                bytes_text(alternative.bytes) if alternative.where != "nowhere" else "",
                bytes_text(alternative.budget) if alternative.where != "nowhere" else "",
                f"excluded: {alternative.excluded}"
                if alternative.excluded is not None and alternative.where != choice.where
                else "",
            )
            for alternative in choice.alternatives
        ]
        yield from plain_table(columns, rows, right_aligned=columns[1:-1])
    yield f"Chosen: {choice.where}; {choice.why}."
    if choice.break_even is not None:
        yield f"Break-even: {_counted(round(choice.break_even, 1), 'epoch')}."
    elif choice.alternatives:
        yield "Break-even: after no number of epochs."


def _measured_lines(measured: Measured) -> Iterator[str]:
    yield f"Measured in {seconds_text(measured.seconds)}:"
    yield f"  prefix, rows sorted by length: {1 / measured.fill:,.0f} tokens/s"
    yield f"  prefix, rows as in a training step: {1 / measured.anew:,.0f} tokens/s"
    yield f"  store: {measured.token_bytes:,.0f} bytes per token and {measured.row_bytes:,.0f} per row"
    yield f"  memory: {_speed(measured.memory)}"
    yield f"  disk: {f'{_speed(measured.disk)}, from the page cache' if measured.disk is not None else 'no access'}"


def _speed(rates: Rates) -> str:
    return f"written {bytes_text(rates.write)}/s, read {bytes_text(rates.read)}/s"


def _work_lines(work: Work) -> Iterator[str]:
    yield f"Ahead: {_ahead(work)}" + (f", shared by {work.processes} processes" if work.processes > 1 else "")
    yield f"  a pass: {_counted(work.rows, 'row')}, {_counted(work.tokens, 'token')}"
    if work.evaluation_passes:
        yield (f"  an evaluation: {_counted(work.evaluation_rows, 'row')}, {_counted(work.evaluation_tokens, 'token')}")
    yield (
        f"  to store: {_counted(work.rows_to_store, 'row')}, {_counted(work.tokens_to_store, 'token')}; "
        f"on disk already: {min(work.held_rows, work.rows_to_store):,}"
    )


def _counted(count: float, noun: str) -> str:
    number = f"{count:,}" if isinstance(count, int) else f"{count:.3g}"
    return f"{number} {noun}" + ("s" if count != 1 else "")
