"""One pass over data sets that fills the stores of several frost lines of one model."""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from frostline.engine.batch_inputs import NeedsPlain
from frostline.engine.engine import Engine
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.store.place import StorePlace
from frostline.training.filling_pass import ReplayableRows, batches_of, lengths_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from frostline.engine.settings import EngineSettings
    from frostline.training.filling_pass import Collate


@dataclass(frozen=True, slots=True)
class SharedPass:
    """What one pass left in the stores.

    Attributes:
        rows: How many rows of each store were computed.
        bytes: What the stores take on disk.
        seconds: What it took, the self-checks of all frost lines included.
        shares: Per plan, as a selector, the seconds that filling its store alone with the first data set takes of that:
            reckoned by the layers beneath it. A plan of which nothing can be stored is not among them.
    """

    rows: int
    bytes: int
    seconds: float
    shares: Mapping[str, float]


def fill_frost_lines(
    model: nn.Module,
    freezes: Sequence[str],
    datasets: Sequence[Any],
    collate: Collate,
    settings: EngineSettings,
    folder: Path,
    *,
    sample: Mapping[str, Any],
    budget: int,
    autocast: torch.dtype | None = None,
    told: Callable[[int, int], None] | None = None,
) -> SharedPass:
    """Fill the stores of several plans for the same weights: each row goes through the layers once.

    A training run of one of the plans that keeps activations on disk in the same folder finds them there.

    Args:
        model: The model of a Trainer, which has its configuration as it trains, and is on its device; it is left as it
            was.
        freezes: What each plan freezes, as a selector; of ``""``, for nothing, the fast paths are tried only.
        datasets: Tokenised rows, with their labels; those to train on first.
        collate: Makes a batch of some of them.
        settings: What the engine may do.
        folder: The folder of stores.
        sample: What the model's forward is called with in a training step.
        budget: The most bytes that all stores may take; each may take an equal part.
        autocast: What autocast computes in while the model trains; None for none.
        told: Is called with the rows that are done, and with all of them; None for nothing.

    Raises:
        SelectorError: If a selector does not fit the model.
        OutputError: If the stores cannot be written.
    """
    began = time.perf_counter()
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    texts = [
        (ReplayableRows(rows, collate, device), batches_of(lengths))
        for rows in datasets
        if (lengths := lengths_of(rows)) is not None
    ]
    plans = [Plan(freeze) if freeze else None for freeze in freezes]
    engines: list[tuple[Plan, Engine]] = []
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, dtype=autocast) if autocast is not None else nullcontext())
        try:
            for plan in plans if texts else ():
                engine = Engine(model, settings)
                about = {"model": engine.model_name}
                place = StorePlace(folder, budget // len(plans), settings.torch_dtype, about=about)
                if _opens(engine, model, plan, sample, place) and plan is not None:
                    engines.append((plan, engine))
            rows, filling = _fill(model, engines, texts, told)
            deepest = max((_depth(engine) for _, engine in engines), default=0)
            return SharedPass(
                rows=rows,
                bytes=sum(engine.store.bytes_used for _, engine in engines if engine.store is not None),
                seconds=time.perf_counter() - began,
                shares={str(plan.freeze): filling * _depth(engine) / deepest for plan, engine in engines},
            )
        finally:
            for _, engine in engines:
                engine.close()
            for module, training in modes:
                module.training = training


def _opens(engine: Engine, model: nn.Module, plan: Plan | None, sample: Mapping[str, Any], place: StorePlace) -> bool:
    """Try the fast paths with a plan in force, and open the store of its frost line; whether there is one to fill."""
    frozen = Freeze(model, plan) if plan is not None else None
    try:
        model.train()
        check = engine.check(sample)
        if check.paths.replay is None or check.paths.whole:  # what holds with its padding only is kept as it comes
            return False
        engine.use(place)
    except NeedsPlain:  # each run says why
        return False
    finally:
        if frozen is not None:
            frozen.restore()
    return engine.store is not None


def _fill(
    model: nn.Module,
    engines: Sequence[tuple[Plan, Engine]],
    texts: Sequence[tuple[ReplayableRows, list[list[int]]]],
    told: Callable[[int, int], None] | None,
) -> tuple[int, float]:
    """Fill the stores, the modules beneath the highest frost line in the modes that training has them in.

    Returns:
        How many rows of each store were computed, and the seconds that those of the first data set took.
    """
    if not engines:
        return 0, 0.0
    highest, first = max(engines, key=lambda pair: _depth(pair[1]))
    every = [engine for _, engine in engines]
    total = sum(len(batch) for _, batches in texts for batch in batches)
    done = computed = 0
    of_first: float | None = None
    began = time.perf_counter()
    frozen = Freeze(model, highest)
    try:
        model.train()
        for rows, batches in texts:
            for batch in batches:
                computed += max(first.fill_beside(every, rows.batch(batch)))
                done += len(batch)
                if told is not None:
                    told(done, total)
            of_first = time.perf_counter() - began if of_first is None else of_first
        for engine in every:
            if engine.store is not None:
                engine.store.flush()
                engine.store.complete()
    finally:
        frozen.restore()
    return computed, of_first or 0.0


def _depth(engine: Engine) -> int:
    check = engine.checked
    return check.paths.replay.skipped if check is not None and check.paths.replay is not None else 0
