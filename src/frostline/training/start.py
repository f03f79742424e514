"""The start of a training run on the engine: what is exact, where activations are kept, and the store filled."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from frostline.base.files import existing_folder
from frostline.base.json import read_json
from frostline.base.logging import get_logger
from frostline.engine.batch_inputs import NeedsPlain
from frostline.engine.cost.choice import choose
from frostline.evidence.probe.inputs import on_device
from frostline.store.folder import default_folder
from frostline.store.listing import why_new
from frostline.store.place import StorePlace
from frostline.store.room import free_memory
from frostline.training.callback import checkpoint_folder
from frostline.training.filling_pass import ReplayableRows, Watches, batches_of
from frostline.training.store_session import StoreSession
from frostline.training.workload import ahead_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from transformers import Trainer

    from frostline.engine.cost.choice import Choice
    from frostline.engine.cost.costs import Measured, Where, Work
    from frostline.engine.engine import Engine
    from frostline.engine.settings import EngineSettings
    from frostline.training.phased import Span
    from frostline.training.ranks import Ranks

ENGINE_FILE = "engine.json"
_CPU = torch.device("cpu")
_BY_SPEED = ("matrix products", "embedding gradients")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


def start(
    engine: Engine,
    settings: EngineSettings,
    trainer: Trainer,
    ranks: Ranks,
    loader: Any,
    inputs: Mapping[str, Any],
    *,
    before: StoreSession | None,
    is_random: bool,
    resumed_from: Path | None,
    span: Span | None,
) -> StoreSession | None:
    """Try the fast paths, choose where activations are kept, and fill the store.

    All processes of the run do so together.

    Args:
        engine: For the model.
        settings: What it may do.
        trainer: Whose run it is.
        ranks: The processes that take part.
        loader: Where the batches come from.
        inputs: What the forward is called with in the first step.
        before: The store of the run before this one.
        is_random: Whether frozen layers follow train(), so that nothing of them can be kept.
        resumed_from: The checkpoint that training goes on from, where it is not in the output folder.
        span: The steps for which what trains stays as it is; None for the whole run.

    Returns:
        The store of this run, or of those steps; None where processes found different paths to be exact.
    """
    done = trainer.state.global_step
    began, end = (span.began, span.end) if span is not None else (0, trainer.state.max_steps)
    settings = settings if span is None or span.stores else replace(settings, store="off")
    goes_on = done > began  # a checkpoint that lies where a phase begins is one of the phase before
    earlier = ranks.from_first(
        _earlier(resumed_from or checkpoint_folder(trainer.args, trainer.state)) if goes_on else None
    )
    behind = began if earlier is not None else done  # what was chosen for all of them holds for the rest
    ahead = ahead_of(trainer.args, trainer.state, behind, end, loader, trainer.eval_dataset, inputs, ranks.count)
    texts, plan, fills = None, [], None
    if ahead.lengths is not None:
        texts = ReplayableRows(loader.dataset, loader.collate_fn, trainer.args.device)
        plan = batches_of(ahead.lengths)
        fills = texts.tried(plan[len(plan) // 2])
    may_fill, plan, shared = ranks.from_first((fills is not None, plan, on_device(dict(inputs), _CPU)))

    try:
        check = engine.check(inputs if ranks.count == 1 else on_device(shared, trainer.args.device))
    except NeedsPlain:  # the step says why
        return StoreSession(engine, ranks, None, None, is_temporary=False)
    choice, folder, is_own = None, None, False
    if ranks.is_first and check.paths.replay is not None and not is_random:
        if before is not None and before.choice is not None and engine.store is not None:
            choice, folder = replace(before.choice, why="kept from the run before"), before.folder
        else:
            work = replace(ahead.work, hosts=max(1, ranks.count // ranks.on_host))
            choice, folder, is_own = _chosen(engine, settings, ranks, work, fills or inputs, inputs, earlier)
    choice, folder, is_own = ranks.from_first((choice, folder, is_own))
    session = StoreSession(engine, ranks, choice, folder, is_temporary=is_own)
    is_kept = choice is not None and choice.where != "nowhere"
    engine.use(_place(engine, settings, ranks, folder, choice.budget) if choice is not None and is_kept else None)

    # What is faster is measured by each, and decides on rounding only.
    paths = [(found.path, found.admitted) for found in check.checks if found.path not in _BY_SPEED]
    if not ranks.agree(repr((paths, check.boundary, engine.store.key.digest() if engine.store is not None else ""))):
        return None
    if may_fill and texts is not None:
        with _telling(trainer) as told:
            session.fill(texts, plan, told)
    return session


def _earlier(checkpoint: Path) -> Where | None:
    """Where a run kept activations, by its checkpoint; None where that is not known."""
    try:
        where: Where = read_json(checkpoint / ENGINE_FILE)["store"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return where if where in {"memory", "disk", "nowhere"} else None


def _place(engine: Engine, settings: EngineSettings, ranks: Ranks, folder: Path | None, budget: int) -> StorePlace:
    """A place as this process uses it."""
    about = {"model": engine.model_name}
    return StorePlace(folder, budget, settings.torch_dtype, writer=ranks.place_on_host, about=about)


def _chosen(
    engine: Engine,
    settings: EngineSettings,
    ranks: Ranks,
    work: Work,
    fills: Mapping[str, Any],
    steps: Mapping[str, Any],
    earlier: Where | None,
) -> tuple[Choice, Path | None, bool]:
    """Choose where activations are kept.

    Args:
        engine: Measures what they cost.
        settings: What is asked for.
        ranks: The processes that take part.
        work: What is ahead.
        fills: Model inputs as the store is filled with; `steps` itself where steps fill it.
        steps: Model inputs as a step has them.
        earlier: Where the run that this one goes on with kept them; None for a run from the start.

    Returns:
        What was chosen; the folder of stores, None for memory; whether the folder is for this run only.
    """
    folder = (settings.store_dir or default_folder()).expanduser()
    measured = engine.measure(fills, steps, folder) if settings.store != "off" else None
    key, place = engine.key, _place(engine, settings, ranks, folder, 0)
    held = measured is not None and settings.store != "memory" and key is not None and place.holds(key)
    if held:
        share, size = engine.held(fills, place)
        work = replace(work, held_rows=round(share * work.rows_to_store), held_bytes=size)
    goes_on = earlier is not None and settings.store == "auto"
    asked = replace(settings, store=earlier) if goes_on and earlier in {"memory", "disk"} else settings
    choice = choose(asked, work, measured, free_memory(), _free(folder))
    if goes_on and earlier is not None:
        choice = replace(choice, where=earlier, why="as before the interruption")
    if settings.store == "disk" and held and work.held == 1:  # whatever the budget, it serves
        choice = replace(choice, why="as asked for")
    if choice.where == "disk":
        reason = why_new(folder, key, engine.model_name) if key is not None and not held else None
        if reason is not None:
            get_logger().info("Store: a new one, as no earlier one serves: %s.", reason)
        return choice, folder, False
    if choice.where == "memory" and ranks.count > 1 and measured is not None:
        return choice, _shared_folder(folder, work, measured), True
    return choice, None, False


def _free(folder: Path) -> int:
    """Bytes of free space where a folder is, or is going to be."""
    return shutil.disk_usage(existing_folder(folder)).free


def _shared_folder(folder: Path, work: Work, measured: Measured) -> Path:
    """A folder in the memory that the processes of a host share; where there is too little, among the stores."""
    size = measured.stored_bytes(work.rows_to_store, work.tokens_to_store)
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > 2 * size:
        folder = _SHARED_MEMORY
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="frostline-", dir=folder))


@contextmanager
def _telling(trainer: Trainer) -> Iterator[Callable[[int, int], None]]:
    """Show how far the store is filled: by the callbacks that want to know, and by a bar where the Trainer has bars."""
    callbacks = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Watches)]
    shows = not trainer.args.disable_tqdm and trainer.is_local_process_zero()
    with tqdm(desc="Storing the frozen part", unit=" rows", leave=False, disable=None if shows else True) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            for callback in callbacks:
                callback.on_fill(done, total)

        yield told
