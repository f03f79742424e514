"""The engine within the Trainer: every step on the fast paths, the store filled before the first."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from frostline.base.json import write_json
from frostline.base.logging import get_logger
from frostline.base.random_state import RngState
from frostline.compat.trainer import prepared
from frostline.engine.batch_inputs import named_inputs
from frostline.engine.engine import Engine
from frostline.engine.replay.boundary import core_of
from frostline.training.callback import checkpoint_folder
from frostline.training.engine_report import EngineReport
from frostline.training.ranks import Ranks
from frostline.training.start import ENGINE_FILE, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import nn
    from transformers import Trainer

    from frostline.engine.settings import EngineSettings
    from frostline.training.phased import Span
    from frostline.training.store_session import StoreSession

_NEW_EACH_TIME = 0.7  # so large a share of rows that were never seen, from the second epoch on, and nothing is kept
_NEW_VIEWS = 0.1  # the same once all views were seen


class EngineCallback(TrainerCallback):
    """The engine of one Trainer.

    Args:
        settings: What it may do.
        is_random: Whether frozen layers follow train(), so that nothing of them can be kept.
        views: How many fixed views each training row has; None where they are read as they are.

    Attributes:
        off: In words, why it does nothing; None if it does.
        earlier: What it did in a run of several phases before the current one: with each report the number of optimizer
            steps by which that ended.
        is_due: Whether a training run has begun, and `begin` was not called yet.
        resumed_from: The checkpoint that training goes on from, where it is not in the output folder.
    """

    def __init__(self, settings: EngineSettings, *, is_random: bool = False, views: int | None = None) -> None:
        self._settings = settings
        self._views = views
        self.off: str | None = None
        self._is_random = is_random
        self._engine: Engine | None = None
        self._model: nn.Module | None = None
        self._core: nn.Module | None = None
        self._autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._session: StoreSession | None = None
        self._ended: EngineReport | None = None
        self._loader: Any = None
        # What tries, chooses and fills at the first call of a step that can be answered; until it did.
        self._start: Callable[[Mapping[str, Any]], None] | None = None
        self._tells = False  # whether it is yet to be said what the engine does
        self._plain_told = False
        self._asked = (0, 0)  # rows asked for, and computed, by the end of the epoch before
        self._epochs = 0
        self._before: StoreSession | None = None  # of the run before this one
        self._span: Span | None = None  # for which what trains stays as it is; None for the whole run
        self.earlier: list[tuple[int, EngineReport]] = []
        self.is_due = False
        self.resumed_from: Path | None = None

    @property
    def report(self) -> EngineReport | None:
        """What the engine does in the last training run; None before its first step, and where it is off."""
        check = self._engine.checked if self._engine is not None else None
        if self._ended is not None or self._session is None or check is None or self._engine is None:
            return self._ended
        store = self._engine.store
        choice = self._session.choice if check.boundary is not None else None
        if choice is not None and self._engine.gave_up_storing:
            choice = replace(choice, where="nowhere", why="what was stored was found to be wrong")
        return EngineReport(
            check=check,
            choice=choice,
            is_random=self._is_random,
            rows=store.rows if store is not None else 0,
            bytes=store.bytes_used if store is not None else 0,
            computed=self._session.computed,
            seconds=self._session.seconds,
            guard=self._engine.guard.to_dict(),
            reason=self._engine.reason,
        )

    @property
    def guard(self) -> dict[str, Any] | None:
        """What came of repeating calls plainly now and then; None where nothing was answered on a fast path."""
        return self._engine.guard.to_dict() if self._engine is not None and self._engine.answered else None

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[None]:
        """Answer the model's calls for a while; the first of a training step that can be answered begins it all.

        Args:
            model: The model, wrapped or not.
        """
        if self.off is not None:
            yield
            return
        engine, core = self._engine_of(model), core_of(model)

        def answer(*arguments: Any, **options: Any) -> Any:
            """Answer within autocast, as the model's own forward does."""
            if self._start is not None and core.training and torch.is_grad_enabled():
                inputs = named_inputs(core, arguments, options)
                with self._autocast():  # one of its own: autocast remembers weights that it cast without gradients
                    if engine.can_read(inputs):
                        begin, self._start = self._start, None
                        begin(inputs)
            with self._autocast():
                return engine.answer(*arguments, **options)

        with engine.active(answer):
            yield
        if core.training and not engine.is_active:
            self._tell()

    def take_back(self, reason: str) -> None:
        """Take back a step whose loss reads what was not computed; it is to be taken again, plainly."""
        if self._engine is not None:
            self._engine.take_back(reason)

    def refresh(self) -> None:
        """Forget what was stored where frozen weights were changed in a way that torch does not count."""
        if self._engine is not None:
            self._engine.forget_if_changed()

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
            self._engine, self._core = Engine(model, self._settings), core_of(model)
        self._model = model
        return self._engine

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember what is ahead; the first step begins it."""
        self._before = self._session
        self._session = self._ended = self._start = None
        self.earlier = []
        self._loader = kwargs["train_dataloader"]
        self._asked, self._epochs = (0, 0), 0
        self.is_due = self.off is None
        if self.off is not None and state.is_world_process_zero:
            get_logger().info("Engine: off, because %s.", self.off)

    def begin_anew(self, span: Span) -> None:
        """Try, choose and fill anew at the next step, from which on something else trains.

        Args:
            span: The steps for which it does.
        """
        self._span = span
        if self._session is None:  # no step was taken since the run began, and the first begins all
            return
        if self.report is not None:
            self.earlier.append((span.began, self.report))
        self._session.end()
        self._before = self._session = self._start = None
        self._asked, self._epochs = (0, 0), 0
        if self._engine is not None:
            self._asked = self._engine.asked, self._engine.computed
        self.is_due = self.off is None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say so where a Trainer's own way to take a step leaves no room for the engine."""
        if self.is_due:
            self.is_due = False
            if state.is_world_process_zero:
                get_logger().info("Engine: off, because training_step is overridden, and does not call this one.")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note in the checkpoint where activations are kept: a resumed run that keeps them alike ends alike."""
        folder = checkpoint_folder(args, state)
        if self._session is not None and self._session.choice is not None and state.is_world_process_zero:
            write_json(folder / ENGINE_FILE, {"store": self._session.choice.where}, indent=None)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Share what was computed in this epoch; keep nothing more where rows are others in each epoch."""
        if self._session is None or self._engine is None:
            return
        self._session.share()
        before, now = self._asked, (self._engine.asked, self._engine.computed)
        asked, computed = now[0] - before[0], now[1] - before[1]
        self._asked, self._epochs = now, self._epochs + 1
        most = _NEW_EACH_TIME if self._views is None else _NEW_VIEWS
        if self._epochs > (self._views or 1) and asked and computed > most * asked:
            why = f"{computed:,} of the {asked:,} rows of the epoch before were never seen before"
            if self._views is not None:
                why += (
                    f" despite store_views={self._views}: what changes them draws from a generator of its own, or a "
                    "collator draws"
                )
            self._session.stop(why)
            if state.is_world_process_zero:
                get_logger().info("Store: switched off, because %s.", why)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep nothing new, and note what was done."""
        if self._session is not None:
            self._ended, self._start, self._loader = self.report, None, None
            self._session.end()

    def begin(self, trainer: Trainer, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """Prepare for a run; what can be answered is tried at the first call that can be.

        Several processes try, choose and fill now, which they do together.

        Args:
            trainer: Whose run it is.
            model: The model, wrapped.
            inputs: The first batch.
        """
        self.is_due = False
        loader = self._loader
        accelerator, ranks = trainer.accelerator, Ranks(trainer.accelerator)
        self._autocast = accelerator.autocast if accelerator.mixed_precision != "no" else nullcontext
        engine = self._engine_of(model)
        engine.forget_if_changed()
        self._tells, self._plain_told = ranks.is_first, False
        begin = partial(self._begin, trainer, ranks, loader)
        if ranks.count == 1:
            self._start = begin
            return
        with engine.active(), self._autocast():
            shown = prepared(trainer, inputs)  # the step does the same
            if engine.can_read(shown):  # else the engine says why not when it is asked
                model.train()  # as the step does
                begin(shown)

    def _begin(self, trainer: Trainer, ranks: Ranks, loader: Any, inputs: Mapping[str, Any]) -> None:
        """Start the engine with what the forward is called with in the first step; random states stay as they are."""
        engine = self._engine_of(trainer.model_wrapped)
        rng = RngState()
        try:
            self._session = start(
                engine,
                self._settings,
                trainer,
                ranks,
                loader,
                inputs,
                before=self._before,
                is_random=self._is_random,
                resumed_from=self.resumed_from,
                span=self._span,
            )
        finally:
            rng.restore()
        if self._session is None:
            self.off = "the self-check had other results in other processes"
            engine.close()
