"""What steps of a model cost under one plan after another, on the fast paths and plainly."""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.engine.engine import Engine
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.store.folder import default_folder
from frostline.store.place import StorePlace
from frostline.store.room import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from frostline.engine.cost.costs import Measured
    from frostline.engine.settings import EngineSettings

_FILLS = 3  # batches of the filling pass
_ROUNDS, _LONGEST = 5, 1.0  # of one step, of which the median counts; seconds


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one plan took on the thin model.

    Attributes:
        seconds: Forward and backward, in one step.
        check: Of the self-check.
        fill: Seconds per token of the filling pass; 0 where nothing is frozen beneath, likewise:
        measured: What the run's own measurement found; None there.
        one_position: Whether the last layer runs for one position of each row.
    """

    seconds: float
    check: float
    fill: float
    measured: Measured | None
    one_position: bool


class StepCosts:
    """Steps of a thin model under one plan after another.

    Args:
        thin: The model.
        step: A batch as a step has it.
        filling: A batch as the filling pass has it.
        settings: What the engine may do.
        half: Whether to compute in mixed precision.
    """

    def __init__(
        self,
        thin: nn.Module,
        step: Mapping[str, torch.Tensor],
        filling: Mapping[str, torch.Tensor],
        settings: EngineSettings,
        *,
        half: bool,
    ) -> None:
        self._thin = thin
        self._step = step
        self._filling = filling
        self._settings = settings
        self._half = half

    def plan(self, trains: str) -> Plan:
        """A plan in which some layers train, and all that the model has above them."""
        units = {unit.kind for unit in ModelMap.of(self._thin).units}
        wanted = [term for term in (*trains.split(", "), "pooler", "head", "norm") if _there(term, units)]
        return Plan(train_only=", ".join(dict.fromkeys(wanted)))

    def _autocast(self) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16) if self._half else nullcontext()

    def fast(self, plan: Plan | None) -> StepCost:
        """Run steps on the fast paths, as the Trainer does."""
        with ExitStack() as stack:
            if plan is not None:
                stack.callback(Freeze(self._thin, plan).restore)
            self._thin.train()
            engine = Engine(self._thin, self._settings)
            stack.callback(engine.close)
            stack.enter_context(engine.active())
            stack.enter_context(self._autocast())
            check = engine.check(self._step)
            measured, fill = None, 0.0
            if check.paths.replay is not None:
                measured = engine.measure(self._filling, self._step, default_folder())
                engine.use(StorePlace(None, free_memory() // 4, self._settings.torch_dtype))
                fill = self._filled(engine)
            one = check.paths.single is not None
            return StepCost(usual_seconds(self._forward_and_backward), check.seconds, fill, measured, one)

    def _filled(self, engine: Engine) -> float:
        """Seconds per token of the filling pass, over batches of rows that are not stored yet."""
        found = []
        for turn in range(_FILLS):
            rows = {**self._filling, "input_ids": self._filling["input_ids"].roll(turn + 1, 1)}
            began = time.perf_counter()
            engine.fill(rows)
            found.append(time.perf_counter() - began)
        return float(np.median(found)) / int(self._filling["attention_mask"].sum())

    def plain(self, plan: Plan | None) -> float:
        """Run steps as transformers.Trainer does: padded, frozen layers with dropout."""
        trains = None if plan is None else set(plan.flags(self._thin, ModelMap.of(self._thin)).items())
        flags = {name: parameter.requires_grad for name, parameter in self._thin.named_parameters()}
        try:
            for name, parameter in self._thin.named_parameters():
                parameter.requires_grad_(trains is None or (name, True) in trains)
            self._thin.train()
            with self._autocast():
                return usual_seconds(self._forward_and_backward)
        finally:
            for name, parameter in self._thin.named_parameters():
                parameter.requires_grad_(flags[name])

    def _forward_and_backward(self) -> None:
        self._thin.zero_grad(set_to_none=True)
        self._thin(**self._step).loss.backward()

    def optimizer(self) -> float:
        """Seconds per parameter of clipping, and of a step of AdamW, on a copy of all that trains."""
        copies = [nn.Parameter(parameter.detach().clone()) for parameter in self._thin.parameters()]
        for one in copies:
            one.grad = torch.full_like(one, 1e-3)
        optimizer = torch.optim.AdamW(copies, lr=1e-6, fused=True)

        def step() -> None:
            nn.utils.clip_grad_norm_(copies, 1.0)
            optimizer.step()

        return usual_seconds(step) / sum(one.numel() for one in copies)


def _there(term: str, kinds: set[Any]) -> bool:
    return term.startswith("layers") or term in kinds


def usual_seconds(run: Callable[[], Any]) -> float:
    """What a run usually takes: the median of some; the first is not counted, as it fills caches."""
    run()
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < _ROUNDS and (not found or time.perf_counter() - began < _LONGEST):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return float(np.median(found))
