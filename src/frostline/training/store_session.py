"""Where the activations of one training run are kept: chosen, filled, shared by its processes, and let go."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.base.logging import get_logger
from frostline.engine.cost.choice import choose
from frostline.engine.replay.replay import NotReplayable
from frostline.store.folder import FOLDER_DIGITS, default_folder
from frostline.store.listing import why_new
from frostline.store.room import free_memory
from frostline.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from frostline.engine.cost.choice import Choice
    from frostline.engine.cost.costs import Measured, Where, Work
    from frostline.engine.engine import Engine
    from frostline.engine.selfcheck.result import SelfCheck
    from frostline.engine.settings import EngineSettings
    from frostline.store.spec import StoreKey, StreamSpec
    from frostline.training.filling_pass import ReplayableRows
    from frostline.training.ranks import Ranks

_BY_SPEED = ("matrix products", "embedding gradients")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


class StoreSession:
    """The store of one training run.

    Args:
        engine: What it is for.
        settings: What the engine may do.
        ranks: The processes that take part.
        work: What is ahead.
        fills: Model inputs as the store is filled with; `steps` itself where steps fill it.
        steps: Model inputs as a step has them.
        earlier: Where the run that this one goes on with kept them; None for a run from the start.

    Attributes:
        choice: Where activations are kept, and why; None before `decide`, and where nothing can be replayed.
        folder: The folder of stores; None in memory.
        budget: The most bytes that the store may take.
        computed: Rows that this process computed to fill the store.
        seconds: What filling it took.
    """

    def __init__(
        self,
        engine: Engine,
        settings: EngineSettings,
        ranks: Ranks,
        work: Work,
        *,
        fills: Mapping[str, Any],
        steps: Mapping[str, Any],
        earlier: Where | None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._ranks = ranks
        self._work = replace(work, hosts=max(1, ranks.count // ranks.on_host))
        self._fills = fills
        self._steps = steps
        self._earlier = earlier
        self.folder: Path | None = None
        self._is_own_folder = False
        self._may_choose = ranks.is_first
        self._is_over = False
        self.budget = 0
        self.choice: Choice | None = None
        self.computed = 0
        self.seconds = 0.0

    def take_over(self, before: StoreSession | None) -> None:
        """Go on with what the run before has chosen, where its store is still there."""
        if before is not None and before.choice is not None and self._engine.store is not None:
            self.choice = replace(before.choice, why="kept from the run before")
            self.folder, self.budget = before.folder, before.budget

    def stop(self, why: str) -> None:
        """Keep nothing any more."""
        self._is_over = True
        if self.choice is not None:
            self.choice = replace(self.choice, where="nowhere", why=why)
        self._engine.stop_storing()

    def decide(self, inputs: Mapping[str, Any]) -> bool:
        """Try the fast paths, and choose; the first process does so for all.

        Args:
            inputs: Model inputs to try them on, the same in all processes.

        Returns:
            Whether all processes found the same.
        """
        if self._ranks.is_first:
            self._engine.ready(inputs)
        self.choice, self.folder, self._is_own_folder = self._ranks.from_first(
            (self.choice, self.folder, self._is_own_folder)
        )
        self._may_choose = False
        check = self._engine.ready(inputs)
        if self._is_own_folder and self.folder is not None and self._ranks.place_on_host == 0:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        # What is faster is measured by each, and decides on rounding only.
        checks = check.checks if check is not None else ()
        paths = [(found.path, found.admitted) for found in checks if found.path not in _BY_SPEED]
        key = self._engine.store.key.digest() if self._engine.store is not None else ""
        return self._ranks.agree(repr((paths, check.boundary if check is not None else None, key)))

    def make_store(
        self, _check: SelfCheck, key: Callable[[], StoreKey], streams: Sequence[StreamSpec]
    ) -> tuple[Store, int] | None:
        """Make the store that was chosen, with the most bytes that it may take; None where nothing is to be kept."""
        if self._is_over:
            return None
        opened = self._choose(key, streams) if self._may_choose else None
        if self.choice is None or self.choice.where == "nowhere":
            return None
        self.budget = self.choice.budget
        if self.folder is None:
            return Store.in_memory(key(), streams, dtype=self._settings.torch_dtype), self.budget
        return opened or self._open(self.folder, key(), streams), self.budget

    def _open(self, folder: Path, key: StoreKey, streams: Sequence[StreamSpec]) -> Store:
        about, writer = {"model": self._engine.model_name}, self._ranks.place_on_host
        return Store.on_disk(folder, key, streams, dtype=self._settings.torch_dtype, writer=writer, about=about)

    def _choose(self, key: Callable[[], StoreKey], streams: Sequence[StreamSpec]) -> Store | None:
        """Choose; returns the store on disk if it was opened to see what it holds, and is what was chosen."""
        folder = (self._settings.store_dir or default_folder()).expanduser()
        measured = self._engine.measure(self._fills, self._steps, folder) if self._settings.store != "off" else None
        held, work = None, self._work
        if (
            measured is not None
            and self._settings.store != "memory"
            and (folder / key().digest()[:FOLDER_DIGITS]).is_dir()
        ):
            held = self._open(folder, key(), streams)
            work = self._with_held(held)
        free_disk = shutil.disk_usage(_existing(folder)).free
        settings = self._settings
        if self._earlier in {"memory", "disk"} and settings.store == "auto":
            settings = replace(settings, store=self._earlier)
        self.choice = choose(settings, work, measured, free_memory(), free_disk)
        if self._earlier is not None and self._settings.store == "auto":
            self.choice = replace(self.choice, where=self._earlier, why="as before the interruption")
        if self._settings.store == "disk" and held is not None and work.held == 1:  # whatever the budget, it serves
            self.choice = replace(self.choice, why="as asked for")
        self._may_choose = False
        if self.choice.where == "disk":
            self.folder = folder
            reason = why_new(folder, key(), self._engine.model_name) if held is None else None
            if reason is not None:
                get_logger().info("Store: a new one, as no earlier one serves: %s.", reason)
            return held
        if held is not None:
            held.close()
        if self.choice.where == "memory" and self._ranks.count > 1 and measured is not None:
            self.folder, self._is_own_folder = self._shared_folder(folder, measured), True
        return None

    def _with_held(self, store: Store) -> Work:
        """The work, with what a store on disk holds of it, reckoned by the share that it holds of a few rows."""
        share = 1 - self._engine.missing(self._fills, store) / len(self._fills["input_ids"])
        held_rows = round(share * self._work.rows_to_store)
        return replace(self._work, held_rows=held_rows, held_bytes=store.bytes_used)

    def _shared_folder(self, folder: Path, measured: Measured) -> Path:
        """A folder in the memory that the processes of a host share; where there is too little, among the stores."""
        size = measured.stored_bytes(self._work.rows_to_store, self._work.tokens_to_store)
        if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > 2 * size:
            folder = _SHARED_MEMORY
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="frostline-", dir=folder))

    def fill(self, texts: ReplayableRows, plan: Sequence[list[int]], told: Callable[[int, int], None]) -> None:
        """Compute what the store does not hold of some texts; each process of a host its part.

        Args:
            texts: The texts.
            plan: Which rows go together, the same in all processes.
            told: Is called with the rows that are done, and with all of this process's.

        Raises:
            KeyboardInterrupt: If it is interrupted; what was computed is kept if the store is on disk.
        """
        store, check = self._engine.store, self._engine.check
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
        if self._ranks.is_first and done == total and store.bytes_used < self.budget:
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

    def end(self) -> None:
        """Keep nothing new; delete what was for this run only."""
        self._is_over = True
        if self._is_own_folder and self.folder is not None:
            self._engine.close()
            self._ranks.wait()
            if self._ranks.place_on_host == 0:
                shutil.rmtree(self.folder, ignore_errors=True)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
