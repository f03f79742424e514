"""The store of one training run: filled, shared by its processes, and let go."""

from __future__ import annotations

import shutil
import time
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from frostline.engine.replay.replay import NotReplayable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from frostline.engine.cost.choice import Choice
    from frostline.engine.engine import Engine
    from frostline.training.filling_pass import ReplayableRows
    from frostline.training.ranks import Ranks


class StoreSession:
    """The store of one training run.

    Args:
        engine: What it is for.
        ranks: The processes that take part.
        choice: Where activations are kept, and why; None where nothing can be replayed.
        folder: The folder of stores; None in memory.
        is_temporary: Whether that folder is for this run only.

    Attributes:
        choice: As given; nowhere once `stop` was called.
        folder: As given.
        computed: Rows that this process computed to fill the store.
        seconds: What filling it took.
    """

    def __init__(
        self, engine: Engine, ranks: Ranks, choice: Choice | None, folder: Path | None, *, is_temporary: bool
    ) -> None:
        self._engine = engine
        self._ranks = ranks
        self._is_temporary = is_temporary
        if is_temporary and folder is not None and ranks.place_on_host == 0:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.choice = choice
        self.folder = folder
        self.computed = 0
        self.seconds = 0.0

    def fill(self, texts: ReplayableRows, plan: Sequence[list[int]], told: Callable[[int, int], None]) -> None:
        """Compute what the store does not hold of some texts; each process of a host its part.

        Args:
            texts: The texts.
            plan: Which rows go together, the same in all processes.
            told: Is called with the rows that are done, and with all of this process's.

        Raises:
            KeyboardInterrupt: If it is interrupted; what was computed is kept if the store is on disk.
        """
        store, check = self._engine.store, self._engine.checked
        if store is None or check is None or check.paths.whole:  # what holds with its padding only is kept as it comes
            return
        started = time.perf_counter()
        part = plan[self._ranks.place_on_host :: self._ranks.on_host]
        done, total = 0, sum(map(len, part))
        try:
            # What cannot be stored after all is said by the first step that needs it.
            with suppress(NotReplayable):
                for rows in part:
                    self.computed += self._engine.fill(texts.batch(rows))
                    done += len(rows)
                    told(done, total)
        finally:
            store.flush()
        self.share()
        if self._ranks.is_first and done == total and self.choice and store.bytes_used < self.choice.budget:
            store.complete()
        self.seconds = time.perf_counter() - started

    def share(self) -> None:
        """Have each process see what the others computed."""
        store = self._engine.store
        if store is not None:
            store.flush()
        if self._ranks.count > 1 and self.folder is not None:
            self._ranks.wait()
            if store is not None:
                store.refresh()

    def stop(self, why: str) -> None:
        """Keep nothing any more."""
        if self.choice is not None:
            self.choice = replace(self.choice, where="nowhere", why=why)
        self._engine.stop_storing()

    def end(self) -> None:
        """Keep nothing that is not kept yet; delete what was for this run only."""
        self._engine.use(None)
        if self._is_temporary and self.folder is not None:
            self._engine.close()
            self._ranks.wait()
            if self._ranks.place_on_host == 0:
                shutil.rmtree(self.folder, ignore_errors=True)
