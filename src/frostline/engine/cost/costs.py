"""What the prefix costs over a run: computed anew in every pass, or stored in memory or on disk."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from frostline.engine.settings import EngineSettings

Where = Literal["nowhere", "memory", "disk"]


@dataclass(frozen=True, slots=True)
class Work:
    """What is ahead, over all processes.

    Attributes:
        rows: Rows that one pass of training runs.
        tokens: Their tokens, padding left out.
        passes: How often they are run: epochs, or what `max_steps` comes to.
        evaluation_rows: Rows that one evaluation runs.
        evaluation_tokens: Their tokens.
        evaluation_passes: How often they are run.
        held_rows: How many of these a store on disk holds from an earlier run.
        held_bytes: What that store takes on disk.
        processes: Processes that share the passes.
        hosts: How many hosts they are on; on each of them its processes fill a store of their own.
    """

    rows: int
    tokens: int
    passes: float
    evaluation_rows: int = 0
    evaluation_tokens: int = 0
    evaluation_passes: float = 0.0
    held_rows: int = 0
    held_bytes: int = 0
    processes: int = 1
    hosts: int = 1

    @property
    def rows_to_store(self) -> int:
        """Rows of training and evaluation."""
        return self.rows + self.evaluation_rows

    @property
    def tokens_to_store(self) -> int:
        """Their tokens."""
        return self.tokens + self.evaluation_tokens

    @property
    def held(self) -> float:
        """The share of the rows to store that a store on disk holds, 0 to 1."""
        return min(1.0, self.held_rows / self.rows_to_store) if self.rows_to_store else 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a store is.

    Attributes:
        write: Bytes per second.
        read: Bytes per second, what finds a row and puts a batch together included.
    """

    write: float
    read: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on the model and the machine at hand.

    Attributes:
        fill: Seconds per token of the prefix, for rows sorted by length, as the store is filled.
        anew: Seconds per token of the prefix, for rows as a training step has them.
        token_bytes: Bytes that the store takes per token.
        row_bytes: Bytes that it takes per row besides.
        memory: Of a store in memory.
        disk: Of a store in the folder of stores, read back from the page cache; None where it cannot be written.
        seconds: What measuring took.
    """

    fill: float
    anew: float
    token_bytes: float
    row_bytes: float
    memory: Rates
    disk: Rates | None
    seconds: float = 0.0

    def stored_bytes(self, rows: float, tokens: float) -> float:
        """Bytes that a store of so many rows and tokens takes."""
        return rows * self.row_bytes + tokens * self.token_bytes


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to come by the prefix's activations, and its cost.

    Attributes:
        where: In memory, on disk, or nowhere.
        once: Seconds to fill the store; infinite where it cannot be written.
        again: Seconds over all passes, to read rows back, or to compute them anew.
        bytes: Bytes that it takes on this host.
        budget: The most bytes that it may take.
        excluded: In words, why it cannot be taken; None if it can.
    """

    where: Where
    once: float
    again: float
    bytes: int = 0
    budget: int = 0
    excluded: str | None = None

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.once + self.again

    def to_dict(self) -> dict[str, Any]:
        """As plain values; seconds that nobody knows are None."""
        values = asdict(self) | {"seconds": self.seconds}
        return {key: None if value == math.inf else value for key, value in values.items()}


def computed_anew(work: Work, measured: Measured) -> Alternative:
    """The prefix computed in every step."""
    tokens = work.tokens * work.passes + work.evaluation_tokens * work.evaluation_passes
    return Alternative("nowhere", 0.0, tokens * measured.anew / work.processes)


def in_memory(settings: EngineSettings, work: Work, measured: Measured, free: int) -> Alternative:
    """The prefix computed once, and kept in memory; several processes share it.

    Args:
        settings: What the engine may do.
        work: What is ahead.
        measured: What was measured.
        free: Bytes of free memory on this host.
    """
    return _stored("memory", work, measured, measured.memory, new=1.0, budget=min(settings.budget(free), free))


def on_disk(settings: EngineSettings, work: Work, measured: Measured, free: int) -> Alternative:
    """The prefix computed once, as far as it is not on disk from an earlier run, and kept there; processes share it.

    Args:
        settings: What the engine may do.
        work: What is ahead.
        measured: What was measured.
        free: Bytes of free space in the folder of stores.
    """
    # What is there already takes no room, but counts towards a budget that the user has set.
    budget = min(settings.budget(free) + (0 if settings.store_budget else work.held_bytes), free + work.held_bytes)
    return _stored("disk", work, measured, measured.disk, new=1.0 - work.held, budget=budget)


def _stored(
    where: Where, work: Work, measured: Measured, rates: Rates | None, *, new: float, budget: int
) -> Alternative:
    """A store of which a share of the rows is still to be computed."""
    size = measured.stored_bytes(work.rows_to_store, work.tokens_to_store)
    if rates is None:
        return Alternative(where, math.inf, 0.0, round(size), budget, "the folder cannot be written")
    once = (work.tokens_to_store * measured.fill + size / rates.write) * new
    again = measured.stored_bytes(work.rows, work.tokens) * work.passes
    again += measured.stored_bytes(work.evaluation_rows, work.evaluation_tokens) * work.evaluation_passes
    excess = f"{bytes_text(size)} exceed its {bytes_text(budget)}" if round(size) > budget else None
    again /= rates.read * work.processes
    return Alternative(where, once * work.hosts / work.processes, again, round(size), budget, excess)


def bytes_text(size: float) -> str:
    """A size for people: ``98 MB``, ``1.5 GB``."""
    unit, factor = next(
        ((unit, 10**power) for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)) if size >= 10**power),
        ("bytes", 1),
    )
    return f"{size / factor:.1f} {unit}" if unit != "bytes" and size < 10 * factor else f"{size / factor:.0f} {unit}"


def seconds_text(seconds: float) -> str:
    """A time for people: ``61 s``, ``7.2 s``, ``40 ms``."""
    if seconds == math.inf:
        return "unknown"
    if seconds >= 1:
        return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 1e-3 or not seconds else "under 1 ms"
