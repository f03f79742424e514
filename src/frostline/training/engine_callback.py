"""The engine within the Trainer: every step on the fast paths, the store filled before the first."""

from __future__ import annotations

import inspect
import json
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from frostline.base.json import read_json
from frostline.base.logging import get_logger
from frostline.base.random_state import RngState
from frostline.compat.trainer import prepared
from frostline.engine.engine import Engine
from frostline.engine.interpose import interposed
from frostline.engine.replay.boundary import core_of
from frostline.evidence.probe.inputs import on_device
from frostline.training.callback import checkpoint_folder
from frostline.training.engine_report import EngineReport
from frostline.training.filling_pass import ReplayableRows, Watches, batches_of
from frostline.training.ranks import Ranks
from frostline.training.store_session import StoreSession
from frostline.training.workload import ahead_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import nn
    from transformers import Trainer

    from frostline.engine.cost.costs import Where
    from frostline.engine.selfcheck.result import SelfCheck
    from frostline.engine.settings import EngineSettings
    from frostline.store.spec import StoreKey, StreamSpec
    from frostline.store.store import Store

ENGINE_FILE = "engine.json"
_CPU = torch.device("cpu")
_NEW_EACH_TIME = 0.7  # so large a share of rows that were never seen, from the second epoch on, and nothing is kept


class EngineCallback(TrainerCallback):
    """The engine of one Trainer.

    Args:
        settings: What it may do.
        is_random: Whether frozen layers follow train(), so that nothing of them can be kept.

    Attributes:
        off: In words, why it does nothing; None if it does.
        is_due: Whether a training run has begun, and `begin` was not called yet.
        resumed_from: The checkpoint that training goes on from, where it is not in the output folder.
    """

    def __init__(self, settings: EngineSettings, *, is_random: bool = False) -> None:
        self._settings = settings
        self.off: str | None = None
        self._is_random = is_random
        self._engine: Engine | None = None
        self._model: nn.Module | None = None
        self._core: nn.Module | None = None
        self._autocast: Callable[[], AbstractContextManager[Any]] | None = None
        self._keeping: StoreSession | None = None
        self._ended: EngineReport | None = None
        self._loader: Any = None
        # What tries, chooses and fills at the first call of a step that can be answered; until it did.
        self._start: Callable[[Mapping[str, Any]], None] | None = None
        self._tells = False  # whether it is yet to be said what the engine does
        self._plain_told = False
        self._asked = (0, 0)  # rows asked for, and computed, by the end of the epoch before
        self._epochs = 0
        self._is_around = False  # within `_around`, where calls are answered already
        self._before: StoreSession | None = None  # of the run before this one
        self.is_due = False
        self.resumed_from: Path | None = None

    @property
    def report(self) -> EngineReport | None:
        """What the engine does in the last training run; None before its first step, and where it is off."""
        check = self._engine.check if self._engine is not None else None
        if self._ended is not None or self._keeping is None or check is None or self._engine is None:
            return self._ended
        store = self._engine.store
        return EngineReport(
            check=check,
            choice=self._keeping.choice if check.boundary is not None else None,
            is_random=self._is_random,
            rows=store.rows if store is not None else 0,
            bytes=store.bytes_used if store is not None else 0,
            computed=self._keeping.computed,
            seconds=self._keeping.seconds,
            guard=self._engine.guard.to_dict(),
            reason=self._engine.reason,
        )

    @property
    def guard(self) -> dict[str, Any] | None:
        """What came of repeating calls plainly now and then; None where nothing was answered on a fast path."""
        return self._engine.guard.to_dict() if self._engine is not None and self._engine.answered else None

    def active(self, model: nn.Module) -> AbstractContextManager[None]:
        """Answer the model's calls for a while; the first of a training step that can be answered begins it all.

        Args:
            model: The model, wrapped or not.
        """
        if self.off is not None or self._is_around:
            return nullcontext()
        engine = self._engine_of(model)
        if self._autocast is None and self._start is None and not self._tells:
            return engine.active()
        return self._around(engine, core_of(model))

    def take_back(self, reason: str) -> None:
        """Take back a step whose loss reads what was not computed; it is to be taken again, plainly."""
        if self._engine is not None:
            self._engine.take_back(reason)

    def refresh(self) -> None:
        """Forget what was stored where frozen weights were changed in a way that torch does not count."""
        if self._engine is not None:
            self._engine.forget_if_changed()

    @contextmanager
    def _around(self, engine: Engine, core: nn.Module) -> Iterator[None]:
        """Have the model's calls answered within autocast, as its own forward is; fill the store before the first."""
        with engine.active():
            answer = core.forward

            def forward(*arguments: Any, **options: Any) -> Any:
                if self._start is not None and core.training and torch.is_grad_enabled():
                    inputs = _named(core, arguments, options)
                    with self._casting():  # one of its own: autocast remembers weights that it cast without gradients
                        if engine.can_read(inputs):
                            start, self._start = self._start, None
                            start(inputs)
                with self._casting():
                    return answer(*arguments, **options)

            self._is_around = True
            try:
                with interposed({core: forward}):
                    yield
            finally:
                self._is_around = False
        if core.training:
            self._tell()

    def _casting(self) -> AbstractContextManager[Any]:
        """Autocast, where the run has it."""
        return self._autocast() if self._autocast is not None else nullcontext()

    def _tell(self) -> None:
        """Say what the engine does, after the first step; and once more if it takes up its work later."""
        if not self._tells:
            return
        report = self.report
        if report is not None and (self.guard is not None or not report.check.paths.any):
            self._tells = False
            get_logger().info("%s", report)
        elif not self._plain_told:
            self._plain_told = True
            get_logger().info("%s", self._plain_line())

    def _plain_line(self) -> str:
        reason = self._engine.reason if self._engine is not None else None
        return f"Engine: the plain path; {reason or 'a step does not call the forward of the model'}."

    def _engine_of(self, model: nn.Module) -> Engine:
        if self._engine is None or (model is not self._model and core_of(model) is not self._core):
            if self._engine is not None:
                self._engine.close()
            self._engine, self._core = Engine(model, self._settings, self._make_store), core_of(model)
        self._model = model
        return self._engine

    def _make_store(
        self, check: SelfCheck, key: Callable[[], StoreKey], streams: list[StreamSpec]
    ) -> tuple[Store, int] | None:
        if self._keeping is None or self._is_random:
            return None
        return self._keeping.make_store(check, key, streams)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember what is ahead; the first step begins it."""
        self._before = self._keeping
        self._keeping = self._ended = self._start = None
        self._loader = kwargs["train_dataloader"]
        self._asked, self._epochs = (0, 0), 0
        self.is_due = self.off is None
        if self.off is not None and state.is_world_process_zero:
            get_logger().info("Engine: off, because %s.", self.off)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say so where a Trainer's own way to take a step leaves no room for the engine."""
        if self.is_due:
            self.is_due = False
            if state.is_world_process_zero:
                get_logger().info("Engine: off, because training_step is overridden, and does not call this one.")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note in the checkpoint where activations are kept: a resumed run that keeps them alike ends alike."""
        folder = checkpoint_folder(args, state)
        if self._keeping is not None and self._keeping.choice is not None and state.is_world_process_zero:
            text = json.dumps({"store": self._keeping.choice.where})
            (folder / ENGINE_FILE).write_text(text + "\n", encoding="utf-8")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Share what was computed in this epoch; keep nothing more where rows are others in each epoch."""
        if self._keeping is None or self._engine is None:
            return
        self._keeping.share()
        before, now = self._asked, (self._engine.asked, self._engine.computed)
        asked, computed = now[0] - before[0], now[1] - before[1]
        self._asked, self._epochs = now, self._epochs + 1
        if self._epochs > 1 and asked and computed > _NEW_EACH_TIME * asked:
            why = f"{computed:,} of the {asked:,} rows of the epoch before were never seen before"
            self._keeping.stop(why)
            if state.is_world_process_zero:
                get_logger().info("Store: switched off, because %s.", why)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep nothing new, and note what was done."""
        if self._keeping is not None:
            self._ended, self._start = self.report, None
            self._keeping.end()

    def begin(self, trainer: Trainer, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """Prepare for a run; what can be answered is tried at the first call that can be.

        Several processes try, choose and fill now, which they do together.

        Args:
            trainer: Whose run it is.
            model: The model, wrapped.
            inputs: The first batch.
        """
        self.is_due = False
        loader, self._loader = self._loader, None
        accelerator, ranks = trainer.accelerator, Ranks(trainer.accelerator)
        self._autocast = accelerator.autocast if accelerator.mixed_precision != "no" else None
        engine = self._engine_of(model)
        engine.forget_if_changed()
        if engine.store is None:  # what an evaluation tried did not know what is ahead
            engine.forget()
        self._tells, self._plain_told = ranks.is_first, False
        start = partial(self._begin, trainer, ranks, loader)
        if ranks.count == 1:
            self._start = start
        elif "input_ids" in inputs:  # else the engine says so when it is asked
            model.train()  # as the step does
            with engine.active(), self._casting():
                start(prepared(trainer, inputs))  # the step does the same

    def _begin(self, trainer: Trainer, ranks: Ranks, loader: Any, inputs: Mapping[str, Any]) -> None:
        """Try the fast paths, choose where activations are kept, and fill the store; random states stay as they are.

        Args:
            trainer: Whose run it is.
            ranks: The processes that take part.
            loader: Where the batches come from.
            inputs: What the forward is called with in this first step.
        """
        rng = RngState()
        try:
            self._begun(trainer, ranks, loader, inputs)
        finally:
            rng.restore()

    def _begun(self, trainer: Trainer, ranks: Ranks, loader: Any, inputs: Mapping[str, Any]) -> None:
        engine = self._engine_of(trainer.model_wrapped)
        state, done = trainer.state, trainer.state.global_step
        earlier = ranks.from_first(
            _earlier(self.resumed_from or checkpoint_folder(trainer.args, state)) if done else None
        )
        behind = 0 if earlier is not None else done  # what was chosen for the whole run holds for the rest of it
        ahead = ahead_of(trainer.args, state, behind, loader, trainer.eval_dataset, inputs, ranks.count)
        texts, plan, fills = None, [], None
        if ahead.lengths is not None:
            texts = ReplayableRows(loader.dataset, loader.collate_fn, trainer.args.device)
            plan = batches_of(ahead.lengths)
            fills = texts.tried(plan[len(plan) // 2])
        may_fill, plan, shared = ranks.from_first((fills is not None, plan, on_device(dict(inputs), _CPU)))
        keeping = self._keeping = StoreSession(
            engine, self._settings, ranks, ahead.work, fills=fills or inputs, steps=inputs, earlier=earlier
        )
        keeping.take_over(self._before)
        alike = inputs if ranks.count == 1 else on_device(shared, trainer.args.device)
        if not keeping.decide(alike):
            self._keeping, self.off = None, "the self-check had other results in other processes"
            engine.close()
        elif may_fill and texts is not None:
            with _telling(trainer) as told:
                keeping.fill(texts, plan, told)


def _earlier(checkpoint: Path) -> Where | None:
    """Where a run kept activations, by its checkpoint; None where that is not known."""
    try:
        where: Where = read_json(checkpoint / ENGINE_FILE)["store"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return where if where in {"memory", "disk", "nowhere"} else None


def _named(model: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a forward is called with, by name."""
    names = list(inspect.signature(type(model).forward).parameters)[1:]
    return dict(zip(names, arguments, strict=False)) | dict(options)


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
