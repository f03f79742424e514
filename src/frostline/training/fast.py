"""The engine around a loop of one's own: Accelerate, Lightning, TRL, sentence-transformers, or plain torch."""

from __future__ import annotations

import functools
import os
import shutil
import weakref
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from frostline.anatomy.wrappers import unwrap
from frostline.base.files import existing_folder
from frostline.base.logging import get_logger
from frostline.engine.batch_inputs import NeedsPlain, layout_of, named_inputs
from frostline.engine.cost.choice import choose
from frostline.engine.cost.costs import Work
from frostline.engine.engine import Engine
from frostline.engine.replay.boundary import core_of
from frostline.engine.settings import EngineSettings
from frostline.errors import ModelError
from frostline.store.folder import default_folder
from frostline.store.place import StorePlace
from frostline.store.room import free_memory
from frostline.training.engine_report import EngineReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from frostline.engine.cost.choice import Choice
    from frostline.engine.interpose import Forward
    from frostline.engine.settings import StoreDtype, StoreWhere

_RANK = "LOCAL_RANK"  # of torchrun and accelerate launch
_CHECKPOINTING = "gradient_checkpointing"
_OFF = {
    "DataParallel": "DataParallel copies the model to other devices in each step",
    "OptimizedModule": "torch.compile fixes how the model runs",
    "FullyShardedDataParallel": "FSDP spreads the model over processes",
    "DeepSpeedEngine": "DeepSpeed runs the model",
}
_RUNNING: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # the models whose calls are answered


@contextmanager
def fast(
    model: nn.Module,
    *,
    store: StoreWhere = "auto",
    store_dir: str | os.PathLike[str] | None = None,
    store_budget: str | None = None,
    store_dtype: StoreDtype | None = None,
    padding_free: bool = True,
    guard: bool = True,
    passes: float = 3.0,
) -> Iterator[LoopEngine]:
    """Answer a model's calls on the fast paths that a self-check finds exact, in whatever loop calls it.

    Freeze first. What is frozen is computed once per row, in the first step that a row comes in, and stored. After the
    block the model is as before; a copy of it that is made within the block runs plainly.

    Args:
        model: The model, or what holds it: DistributedDataParallel, a PEFT model, a LightningModule, a
            SentenceTransformer.
        store: Where the frozen part's activations are kept: ``"auto"``, ``"off"``, ``"memory"`` or ``"disk"``.
        store_dir: The folder for stores on disk; by default one in the user's cache.
        store_budget: The most that a store may take, such as ``"4GB"``; by default half of what is free.
        store_dtype: What activations are stored as; by default as they are computed.
        padding_free: Whether layers may run on real tokens only.
        guard: Whether calls are repeated plainly now and then.
        passes: How often each row is expected to come, by which ``"auto"`` decides whether storing pays.

    Yields:
        The engine; its `report` says what it does.

    Raises:
        ModelError: If the model is no module, or is in such a block already.
        SettingsError: If a setting is none.
    """
    folder = Path(store_dir) if store_dir is not None else None
    engine = LoopEngine(model, EngineSettings(store, folder, store_budget, store_dtype, padding_free, guard), passes)
    with engine.running():
        yield engine


class LoopEngine:
    """The engine of one model while a loop calls it.

    Args:
        model: The model, wrapped or not.
        settings: What it may do.
        passes: How often each row is expected to come.
    """

    def __init__(self, model: nn.Module, settings: EngineSettings, passes: float) -> None:
        self._core = called_within(model)
        self._off = next((_OFF[name] for name in unwrap(model).wrappers if name in _OFF), None)
        if self._core in _RUNNING:
            raise ModelError(f"{type(self._core).__name__} is in a block of fl.fast already.\nLeave one of them out.")
        self._settings = settings
        self._passes = passes
        self._engine = Engine(self._core, settings, retakes=False)
        self._choice: Choice | None = None
        self._checkpointing: list[Any] = [module for module in self._core.modules() if hasattr(module, _CHECKPOINTING)]
        self._switched_off: list[Any] = []
        self._refused: str | None = None  # why the last call that trains could not be tried
        self._is_due = True
        self._is_told = False
        self._ended: EngineReport | None = None

    @property
    def report(self) -> EngineReport | None:
        """What the engine does; None before the model was called in training."""
        check = self._engine.checked
        if self._ended is not None or check is None or self._is_due:
            return self._ended
        store = self._engine.store
        return EngineReport(
            check=check,
            choice=self._choice if check.boundary is not None else None,
            is_random=False,
            rows=store.rows if store is not None else 0,
            bytes=store.bytes_used if store is not None else 0,
            computed=0,
            seconds=0.0,
            guard=self._engine.guard.to_dict(),
            reason=self._engine.reason,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer the model's calls for a while."""
        if self._off is not None:
            get_logger().info("Engine: the plain path; %s.", self._off)
            yield
            return
        core = self._core
        own = after = _stand_in(core, self._answer, vars(core).get("forward"))
        _RUNNING.add(core)
        try:
            with self._engine.active(own):
                try:
                    yield
                finally:
                    after = vars(core).get("forward", own)
        finally:
            if after is not own:  # somebody wrapped the forward, and ours is inside
                vars(core)["forward"] = after
            _RUNNING.discard(core)
            self._end()

    def _answer(self, *arguments: Any, **options: Any) -> Any:
        trains = self._core.training and torch.is_grad_enabled()
        if self._is_due and trains:
            self._begin(named_inputs(self._core, arguments, options))
        output = self._engine.answer(*arguments, **options)
        if trains and not self._is_told and self._engine.answered:
            self._is_told = True
            get_logger().info("%s", self.report)
        return output

    def _begin(self, inputs: Mapping[str, Any]) -> None:
        """Try the fast paths on the first call that trains and can be answered, and choose where to store."""
        self._switch_checkpointing_off()
        try:
            check = self._engine.check(inputs)
        except NeedsPlain as reason:  # another call may be one that it can answer
            self._refused = str(reason)  # the engine will see checkpointing switched on again, and say that
            self._switch_checkpointing_on()
            return
        self._is_due, self._refused = False, None
        if check.paths.replay is None:
            self._switch_checkpointing_on()
            return
        if self._switched_off:
            get_logger().info("Gradient checkpointing: switched off, as the frozen layers beneath keep nothing for it.")
        folder = (self._settings.store_dir or default_folder()).expanduser()
        measured = self._engine.measure(inputs, inputs, folder) if self._settings.store != "off" else None
        layout = layout_of(inputs)
        work = Work(rows=layout.count, tokens=layout.tokens, passes=self._passes)
        free = shutil.disk_usage(existing_folder(folder)).free
        choice = choose(self._settings, work, measured, free_memory(), free)
        weighed = self._settings.store == "auto" and measured is not None
        self._choice = replace(choice, why=f"for a batch, {choice.why}") if weighed else choice
        if choice.where != "nowhere":
            about = {"model": self._engine.model_name}
            where = folder if choice.where == "disk" else None
            rank = int(os.environ.get(_RANK, "0"))
            self._engine.use(StorePlace(where, choice.budget, self._settings.torch_dtype, writer=rank, about=about))

    def _switch_checkpointing_off(self) -> None:
        """Layers that run again in the backward pass would run without what was stored for them."""
        self._switched_off = [module for module in self._checkpointing if module.gradient_checkpointing]
        for module in self._switched_off:
            module.gradient_checkpointing = False

    def _switch_checkpointing_on(self) -> None:
        for module in self._switched_off:
            module.gradient_checkpointing = True
        self._switched_off = []

    def _end(self) -> None:
        """Leave the model as it was, and say so where nothing was done."""
        if not self._engine.answered:
            check = self._engine.checked
            untaken = check.checks[0].how if check is not None and not check.paths.any else None
            never = "the forward of the model was not called in training"
            why = self._refused or self._engine.reason or untaken or never
            get_logger().info("Engine: the plain path; %s.", why)
        store = self._engine.store
        if store is not None:
            store.flush()
        self._ended = self.report
        self._switch_checkpointing_on()
        self._engine.close()


def called_within(model: nn.Module) -> nn.Module:
    """Find the module whose forward the loop calls with tensors, inside whatever holds it.

    Raises:
        ModelError: If the model is no module.
    """
    core = core_of(model)
    if isinstance(core, PreTrainedModel) or not (isinstance(core, nn.Sequential) or hasattr(core, "training_step")):
        return core
    inside = [path for path, module in core.named_modules() if isinstance(module, PreTrainedModel)]
    outermost = [path for path in inside if not any(path.startswith(f"{other}.") for other in inside)]
    return core_of(core.get_submodule(outermost[0])) if len(outermost) == 1 else core


def _stand_in(core: nn.Module, answer: Forward, before: Forward | None) -> MethodType:
    """A method in place of a model's forward, with its signature; in a copy of the model it is the plain one."""
    original = type(core).forward

    @functools.wraps(original)
    def forward(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        if self is not core:
            return original(self, *arguments, **options)
        if core in _RUNNING:
            return answer(*arguments, **options)
        return before(*arguments, **options) if before is not None else original(self, *arguments, **options)

    return MethodType(forward, core)
