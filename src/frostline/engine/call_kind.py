"""What was found out about calls of one kind: which paths are exact for them, and what is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from frostline.engine.selfcheck.guard import Seen

if TYPE_CHECKING:
    from torch import nn

    from frostline.engine.batch_inputs import Call
    from frostline.engine.fast_paths import FastPaths
    from frostline.engine.replay.prefix import Prefix, Version
    from frostline.engine.selfcheck.result import SelfCheck
    from frostline.store.store import Store


@dataclass
class CallKind:
    """What was found out about calls of one kind, and holds as long as nobody changes the model.

    Attributes:
        tensors: The names of a call's tensors.
        constants: All other inputs.
        check: Which paths are exact.
        paths: Those that are taken: fewer than were admitted, once the guard has found one wrong.
        values: Plain values among modules' attributes, by what holds them and their names.
        prefix: The tensors beneath the boundary; None where nothing is stored.
        versions: What each of them was: where it lay, and how often it was written.
        digest: One of all of them.
        skipped: The modules that are not run.
        store: What is kept; None to run everything.
        budget: The most bytes that the store may take.
        widths: Positions of rows for which it was looked up that one position only is read.
        seen: What the guard knows.
        refused: How many calls could not be answered on the paths after all.
    """

    tensors: frozenset[str]
    constants: dict[str, Any]
    check: SelfCheck
    paths: FastPaths
    values: list[tuple[dict[str, Any], str, Any]]
    prefix: Prefix | None = None
    versions: tuple[Version, ...] = ()
    digest: str = ""
    skipped: tuple[nn.Module, ...] = ()
    store: Store | None = None
    budget: int = 0
    widths: set[int] = field(default_factory=set)
    seen: Seen = field(default_factory=Seen)
    refused: int = 0

    def takes(self, call: Call) -> bool:
        """Whether a call of this kind is one of those that were tried: its inputs lie and are padded alike."""
        aligned = self.paths.aligned or frozenset()
        if not aligned <= call.aligned or any(held.get(name) != value for held, name, value in self.values):
            return False
        return not call.paddings or all(call.paddings[name] == self.check.paddings.get(name) for name in aligned)
