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

from frostline.engine.engine import Engine
from frostline.engine.interpose import interposed
from frostline.engine.route import core_of
from frostline.engine.trial import MOST_ROWS
from frostline.evidence.inputs import on_device
from frostline.evidence.rng import RngState
from frostline.log import get_logger
from frostline.plainjson import read_json
from frostline.training.ahead import ahead_of
from frostline.training.callback import checkpoint_folder
from frostline.training.engine_report import EngineReport
from frostline.training.filling import Texts, Watches, batches_of, rows_to_try
from frostline.training.keeping import Keeping
from frostline.training.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import nn

    from frostline.engine.checked import SelfCheck
    from frostline.engine.costs import Where
    from frostline.engine.settings import EngineSettings
    from frostline.engine.store.spec import StoreKey, StreamSpec
    from frostline.engine.store.store import Store
    from frostline.training.trainer import Trainer

ENGINE_FILE = "engine.json"
_CPU = torch.device("cpu")


class FastPaths(TrainerCallback):
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
        self._keeping: Keeping | None = None
        self._ended: EngineReport | None = None
        self._loader: Any = None
        self._fill: Callable[[], None] | None = None  # what fills the store, until it did
        self._is_told = True
        self._is_around = False  # within `_around`, where calls are answered already
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
        )

    def active(self, model: nn.Module) -> AbstractContextManager[None]:
        """Answer the model's calls for a while; the first that can be answered in a training step fills the store.

        Args:
            model: The model, wrapped or not.
        """
        if self.off is not None or self._is_around:
            return nullcontext()
        engine = self._engine_of(model)
        if self._autocast is None and self._fill is None:
            return engine.active()
        return self._around(engine, core_of(model))

    @contextmanager
    def _around(self, engine: Engine, core: nn.Module) -> Iterator[None]:
        """Have the model's calls answered within autocast, as its own forward is; fill the store before the first."""
        with engine.active():
            answer = core.forward

            def forward(*arguments: Any, **options: Any) -> Any:
                if self._fill is not None and core.training:
                    with self._casting():  # one of its own: autocast remembers weights that it cast without gradients
                        if engine.ready(_named(core, arguments, options)):
                            fill, self._fill = self._fill, None
                            fill()
                            self._tell()
                with self._casting():
                    return answer(*arguments, **options)

            self._is_around = True
            try:
                with interposed({core: forward}):
                    yield
            finally:
                self._is_around = False
        self._tell()

    def _casting(self) -> AbstractContextManager[Any]:
        """Autocast, where the run has it."""
        return self._autocast() if self._autocast is not None else nullcontext()

    def _tell(self) -> None:
        """Say once what the engine does."""
        if self._is_told:
            return
        self._is_told = True
        line = self.report or (f"Engine: off, because {self.off}." if self.off is not None else None)
        if line is not None:
            get_logger().info("%s", line)

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
        self._keeping = self._ended = self._fill = None
        self._loader = kwargs["train_dataloader"]
        self.is_due = self.off is None
        if self.off is not None and state.is_world_process_zero:
            get_logger().info("Engine: off, because %s.", self.off)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note in the checkpoint where activations are kept: a resumed run that keeps them alike ends alike."""
        folder = checkpoint_folder(args, state)
        if self._keeping is not None and self._keeping.choice is not None and state.is_world_process_zero:
            text = json.dumps({"store": self._keeping.choice.where})
            (folder / ENGINE_FILE).write_text(text + "\n", encoding="utf-8")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Share what was computed in this epoch."""
        if self._keeping is not None:
            self._keeping.share()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep nothing new, and note what was done."""
        if self._keeping is not None:
            self._ended, self._fill = self.report, None
            self._keeping.end()

    def begin(self, trainer: Trainer, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        """Try the fast paths, and choose where activations are kept.

        Several processes fill the store now, which they do together; one does so when a step first makes use of it.
        Random states stay as a step without this finds them.

        Args:
            trainer: Whose run it is.
            model: The model, wrapped.
            inputs: The first batch, on the model's device.
        """
        self.is_due = False
        loader, self._loader = self._loader, None
        rng = RngState()
        try:
            self._begin(trainer, model, inputs, loader)
        finally:
            rng.restore()

    def _begin(self, trainer: Trainer, model: nn.Module, inputs: Mapping[str, Any], loader: Any) -> None:
        accelerator, ranks = trainer.accelerator, Ranks(trainer.accelerator)
        self._autocast = accelerator.autocast if accelerator.mixed_precision != "no" else None
        model.train()  # as the step does
        engine = self._engine_of(model)
        if engine.store is None:  # what an evaluation tried did not know what is ahead
            engine.close()
        if "input_ids" not in inputs:
            return  # the engine says so when it is asked
        state, done = trainer.state, trainer.state.global_step
        earlier = ranks.from_first(
            _earlier(self.resumed_from or checkpoint_folder(trainer.args, state)) if done else None
        )
        behind = 0 if earlier is not None else done  # what was chosen for the whole run holds for the rest of it
        ahead = ahead_of(trainer.args, state, behind, loader, trainer.eval_dataset, inputs, ranks.count)
        texts, plan, tries, fills = None, [], None, None
        if ahead.lengths is not None:
            texts = Texts(loader.dataset, loader.collate_fn, trainer.args.device)
            plan = batches_of(ahead.lengths)
            tries = texts.tried(rows_to_try(ahead.lengths, MOST_ROWS))
            fills = texts.tried(plan[len(plan) // 2])
        may_fill = tries is not None and fills is not None
        may_fill, plan, shared = ranks.from_first((may_fill, plan, on_device(tries or dict(inputs), _CPU)))
        keeping = self._keeping = Keeping(
            engine, self._settings, ranks, ahead.work, fills=fills or inputs, steps=inputs, earlier=earlier
        )
        with engine.active(), self._casting():
            if not keeping.decide(on_device(shared, trainer.args.device)):
                self._keeping, self.off = None, "the self-check had other results in other processes"
                engine.close()
            elif may_fill and texts is not None and ranks.count == 1 and engine.store is not None:
                self._fill = partial(_filled, trainer, keeping, texts, plan)
            elif may_fill and texts is not None:
                _filled(trainer, keeping, texts, plan)
        self._is_told = not ranks.is_first
        if self._fill is None:
            self._tell()


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


def _filled(trainer: Trainer, keeping: Keeping, texts: Texts, plan: list[list[int]]) -> None:
    """Fill the store, and leave random states as they are."""
    rng = RngState()
    try:
        with _telling(trainer) as told:
            keeping.fill(texts, plan, told)
    finally:
        rng.restore()


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
