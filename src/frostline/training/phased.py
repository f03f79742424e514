"""A schedule in force on the model of a training run: flags, rates, and what is proven, phase by phase."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.anatomy.modelmap import ModelMap
from frostline.base.json import write_json
from frostline.base.logging import get_logger
from frostline.errors import PlanError, SettingsError
from frostline.evidence.optimizers import held, inner_optimizer
from frostline.evidence.proof.fingerprint import Fingerprint, fingerprint
from frostline.evidence.proof.phase_proof import PhaseProof
from frostline.evidence.proof.proof import planned_names
from frostline.freezing.freeze import Freeze
from frostline.plan.describe import describe
from frostline.plan.phase_on_model import PhaseOnModel, compile_schedule
from frostline.plan.plan import FrozenMode, Plan
from frostline.plan.presets import schedule_for
from frostline.plan.schedule import Schedule
from frostline.training.first_step import can_be_watched
from frostline.training.phase_rates import PhaseRates
from frostline.training.phase_state import PHASES_FILE, SavedPhases
from frostline.training.progress import Progress, is_lower_better

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Span:
    """The steps for which what trains stays as it is, as far as that is known before.

    Attributes:
        began: Optimizer steps that were taken when they began.
        end: Those that are when they end; of an open end, those of the run.
        stores: Whether they are enough for storing what is frozen to be thought of.
    """

    began: int
    end: int
    stores: bool = True


class PhasedRun:
    """A schedule in force on one model.

    Until a run begins, all that trains in any phase trains, so that the optimizer that is made in the meantime holds
    it. From then on what trains is a pure function of the steps that were taken and of what `SavedPhases` holds.

    Args:
        given: What `schedule_for` takes.
        frozen_mode: How frozen modules behave.

    Attributes:
        schedule: The schedule; None before a model is known.
        proofs: Those of the phases that are over.
        seconds: What fingerprints took since the run began.
        rates: The rates, in force while the optimizer steps.
        on_switch: Is called once something else trains from the next step on.
    """

    def __init__(self, given: Any, frozen_mode: FrozenMode) -> None:
        self._given = given
        self._frozen_mode = frozen_mode
        self.schedule: Schedule | None = None
        self.proofs: list[PhaseProof] = []
        self.seconds = 0.0
        self.rates = PhaseRates()
        self.on_switch: Callable[[Span], None] | None = None
        self._compiled: tuple[PhaseOnModel, ...] = ()
        self._model: nn.Module | None = None
        self._force: Freeze | None = None
        self._progress = Progress()
        self._lengths: list[int | None] = []
        self._applied = 0  # the phase whose flags are in force
        self._trains: frozenset[str] = frozenset()  # by these names
        self._from_step = 0  # at which it began
        self._before: Fingerprint | None = None  # as it was then; None until it is known, and once it was compared
        self._factors: dict[torch.nn.Parameter, float] | None = None
        self._seed = 0
        self._run_rate = 0.0
        self._steps = 0  # of the run
        self._heard: set[str] = set()  # metrics of evaluations since the last step

    @property
    def is_over(self) -> bool:
        """Whether the last phase is over."""
        return self._progress.phase >= len(self._compiled)

    @property
    def current(self) -> PhaseOnModel:
        """The phase whose flags are in force."""
        return self._compiled[self._applied]

    def prepare(self, model: nn.Module) -> None:
        """Let all train that trains in any phase; doing it again to the same model changes nothing.

        Raises:
            PlanError: If what was given is no schedule.
            SelectorError: If a selector does not fit the model.
        """
        if model is self._model:
            return
        self.schedule = schedule_for(model, self._given)
        self._compiled = compile_schedule(model, self.schedule)
        self._model, self._force = model, None
        self._put(frozenset().union(*(phase.trains for phase in self._compiled)))

    def begin(self, args: Any, state: Any, optimizer: Any, loader: Any, checkpoint: Path | None) -> None:
        """Begin a run, or go on with one, and put the flags of its next step in force.

        Args:
            args: The Trainer's arguments.
            state: Its state.
            optimizer: Its optimizer.
            loader: What it takes the training batches from.
            checkpoint: The checkpoint that it goes on from; None for a run from the start.

        Raises:
            PlanError: If the schedule does not fit the run, the optimizer lacks what a later phase trains, or the
                checkpoint is of another schedule, or does not tell how far it had come.
            SettingsError: If the parameters are spread over processes.
        """
        assert self._model is not None  # noqa: S101
        assert self.schedule is not None  # noqa: S101
        if not can_be_watched(self._model):
            raise SettingsError(
                "A schedule changes what trains, and FSDP or DeepSpeed has spread the parameters over processes.\n"
                "Train with DistributedDataParallel, or with one plan: freeze=…"
            )
        self._seed, self._run_rate, self._steps = args.seed, float(args.learning_rate), state.max_steps
        self.proofs, self.seconds, self._before, self._from_step = [], 0.0, None, state.global_step
        self.rates.take_away()
        self._refuse_other_optimizer(optimizer)
        saved = SavedPhases.read(checkpoint, self.schedule) if checkpoint is not None else None
        self._progress = saved.progress if saved is not None else Progress()
        if not self.is_over:
            self._lengths = self._lengths_in(args, loader)
            self._refuse_unfit(args)
            self._progress.advance(state.global_step, self._lengths)
        if saved is None:
            self._applied = min(self._progress.phase, len(self._compiled) - 1)
            self._put(self._wanted(state.global_step))
            self._tell(state)
            self._call(Span(state.global_step, self._end()))
            return
        self._applied, self._from_step, self._before = saved.applied, saved.from_step, saved.before
        self.proofs = list(saved.proofs)
        self._put(saved.trains)
        self._call(Span(self._progress.began, self._end()))
        if not self.is_over:
            self.before_step(state, optimizer)

    def start_proof(self, before: Fingerprint) -> None:
        """Take a fingerprint as that of the phase's start, unless an earlier run left one."""
        if self._before is None:
            self._before = before

    def before_step(self, state: Any, optimizer: Any) -> bool:
        """Put in force what trains in the next step.

        Returns:
            Whether it is the first of a phase.

        Raises:
            PlanError: If evaluations do not give the metric of a plateau.
        """
        assert self._model is not None  # noqa: S101
        self._refuse_unheard()
        if self.is_over:
            return False
        step = state.global_step
        phase = self._progress.phase
        is_first = phase != self._applied
        if is_first:
            after = self._fingerprint()
            self._close(step, after)
            self._applied, self._from_step, self._before = phase, step, after
        wanted = self._wanted(step)
        if wanted != self._trains:
            thawed = wanted - self._trains
            self._put(wanted)
            if self.schedule is not None and self.schedule.optimizer_state == "reset":
                for name in thawed:
                    inner_optimizer(optimizer).state.pop(self._model.get_parameter(name), None)
        elif not is_first:
            return False
        self._factors = None
        if is_first:
            self._tell(state)
        choice = self.current.phase.choice
        if is_first or choice is None or choice.random is None:  # what is drawn for a few steps is not stored
            self._call(Span(step, self._end()))
        return is_first

    def put_rates(self, state: Any, optimizer: Any) -> None:
        """Put the phase's rates in force for one step of the optimizer, and note the norms of its gradients."""
        assert self._model is not None  # noqa: S101
        phase = self.current
        choice = phase.phase.choice
        if choice is not None and choice.random is None:
            self._progress.note_norms([_norm(self._model, names) for names in phase.layers])
        if not phase.rates and phase.phase.layer_decay is None and phase.phase.warmup is None:
            self.rates.highest = None
            return
        real = inner_optimizer(optimizer)
        if self._factors is None:
            bases = {
                id(parameter): float(group.get("initial_lr", self._run_rate))
                for group in real.param_groups
                for parameter in group["params"]
            }
            named = ((name, self._model.get_parameter(name)) for name in self._trains)
            self._factors = {parameter: phase.factor(name, bases[id(parameter)]) for name, parameter in named}
        self.rates.put(real, self._factors, self._warmup(state.global_step - self._progress.began))

    def after_step(self, step: int) -> None:
        """Note that a step was taken."""
        choice = self.current.phase.choice
        if choice is not None and choice.random is None and (step - self._progress.began) % choice.every == 0:
            self._progress.settle()
        self._progress.advance(step, self._lengths)

    def note_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note what an evaluation gave, as far as the phase waits for it."""
        length = self.current.phase.length
        if self.is_over or length is None or length.kind != "plateau" or self._progress.phase != self._applied:
            return
        self._heard |= metrics.keys()
        if length.metric in metrics:
            self._progress.note_evaluation(
                step,
                float(metrics[length.metric]),
                patience=int(length.amount),
                lower=is_lower_better(length.metric),
            )

    def save(self, folder: Path) -> None:
        """Write into a checkpoint how far the schedule has come."""
        assert self.schedule is not None  # noqa: S101
        saved = SavedPhases(
            self._progress, self._applied, self._trains, self._from_step, self._before, tuple(self.proofs)
        )
        write_json(folder / PHASES_FILE, saved.to_dict(self.schedule), indent=None)

    def end(self, step: int) -> None:
        """Prove the last phase, before other weights are put in the place of those that it ended with."""
        if self._before is not None:
            self._close(step, self._fingerprint())

    def frozen_throughout(self) -> frozenset[str]:
        """Names of the tensors that had to stay in every phase that was run."""
        found = [self._frozen(proof.number - 1) for proof in self.proofs]
        return frozenset.intersection(*found) if found else frozenset()

    def _frozen(self, phase: int) -> frozenset[str]:
        assert self._model is not None  # noqa: S101
        selector = self._compiled[phase].phase.train
        return planned_names(self._model, Plan(train_only=selector, frozen_mode=self._frozen_mode))

    def _close(self, step: int, after: Fingerprint) -> None:
        if self._before is not None and step > self._from_step:
            proof = PhaseProof.of(
                self._before,
                after,
                self._frozen(self._applied),
                self.current.trains,
                number=self._applied + 1,
                train=self.current.phase.train,
                from_step=self._from_step,
                to_step=step,
            )
            self.proofs.append(proof)
            log = get_logger().warning if proof.drifted else get_logger().info
            log("Proof: %s", proof)
        self._before = None

    def _fingerprint(self) -> Fingerprint:
        assert self._model is not None  # noqa: S101
        began = time.perf_counter()
        found = fingerprint(self._model)
        self.seconds += time.perf_counter() - began
        return found

    def _put(self, names: frozenset[str]) -> None:
        """Let parameters train by their names, and freeze all others."""
        assert self._model is not None  # noqa: S101
        if self._force is not None:
            self._force.restore()
        selector = describe(ModelMap.of(self._model), names)
        self._force = Freeze(self._model, Plan(train_only=selector, frozen_mode=self._frozen_mode))
        self._trains, self._factors = names, None

    def _wanted(self, step: int) -> frozenset[str]:
        return self.current.training_at(step - self._progress.began, self._seed, self._progress.settled)

    def _call(self, span: Span) -> None:
        if self.on_switch is not None:
            choice = self.current.phase.choice
            self.on_switch(Span(span.began, span.end, stores=choice is None or choice.random is None))

    def _end(self) -> int:
        """The step at which the current phase ends, as far as that is known; else that at which the run does."""
        length = self._lengths[self._applied] if self._lengths else None
        return self._steps if length is None else min(self._steps, self._progress.began + length)

    def _tell(self, state: Any) -> None:
        if state.is_world_process_zero:
            get_logger().info("Phase %d of %d: %s.", self._applied + 1, len(self._compiled), self.current.phase)

    def _warmup(self, step: int) -> float:
        """What the rates of a step, counted from the phase's first, are multiplied by."""
        given = self.current.phase.warmup
        if given is None:
            return 1.0
        steps = given if given >= 1 else round(given * (self._end() - self._progress.began))
        return min(1.0, (step + 1) / (steps + 1))

    def _lengths_in(self, args: Any, loader: Any) -> list[int | None]:
        """Optimizer steps of each phase in a run."""
        assert self.schedule is not None  # noqa: S101
        try:
            per_epoch: int | None = max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
        except TypeError:
            per_epoch = None
        lengths: list[int | None] = []
        for number, phase in enumerate(self.schedule.phases, 1):
            with self.schedule.at(number):
                length = phase.length
                lengths.append(None if length is None else length.steps(per_epoch, self._steps))
        return lengths

    def _refuse_unfit(self, args: Any) -> None:
        """Look whether the run is long enough for all phases, and gives what they wait for."""
        assert self.schedule is not None  # noqa: S101
        begins = 0
        for number, (phase, length) in enumerate(zip(self.schedule.phases, self._lengths, strict=True), 1):
            if begins >= self._steps:
                raise PlanError(
                    f"{self.schedule.where(number)} would begin after {begins} steps, and the run has "
                    f"{self._steps}.\nTrain longer (num_train_epochs, max_steps), or shorten the phases before."
                )
            begins += length or 0
            is_plateau = phase.length is not None and phase.length.kind == "plateau"
            if is_plateau and args.eval_strategy.value == "no":
                raise PlanError(
                    f"{self.schedule.where(number)}: until = {phase.until!r} waits for evaluations, and the run has "
                    "none.\nGive evaluation data and eval_strategy='epoch' (frostline train: --eval)."
                )
            if is_plateau and phase.warmup is not None and phase.warmup < 1:
                raise PlanError(
                    f"{self.schedule.where(number)}: warmup is the share {phase.warmup} of a phase whose length is not "
                    "known.\nGive steps."
                )
            if any(not rate.is_factor for rate in phase.rates().values()) and not self._run_rate:
                raise PlanError(
                    f"{self.schedule.where(number)} has an lr, and the run's learning rate is 0.\nGive one."
                )
        if begins > self._steps:
            raise PlanError(
                f"{self.schedule.where(len(self._lengths))} would end after {begins} steps, and the run has "
                f"{self._steps}.\nTrain longer (num_train_epochs, max_steps), or shorten a phase."
            )

    def _refuse_other_optimizer(self, optimizer: Any) -> None:
        """Look whether an optimizer holds, once each, all parameters that a phase trains."""
        assert self._model is not None  # noqa: S101
        assert self.schedule is not None  # noqa: S101
        ids = {id(parameter) for parameter in held(optimizer)}
        for compiled in self._compiled:
            lacking = [name for name in sorted(compiled.trains) if id(self._model.get_parameter(name)) not in ids]
            if lacking:
                raise PlanError(
                    f"{self.schedule.where(compiled.number)} trains {lacking[0]}"
                    f"{f' and {len(lacking) - 1} more' if len(lacking) > 1 else ''}, which the optimizer does not "
                    "hold.\nLet the Trainer make it, or build it over all that trains in any phase."
                )

    def _refuse_unheard(self) -> None:
        """Look whether evaluations gave the metric that the phase waits for."""
        length = self.current.phase.length
        heard, self._heard = self._heard, set()
        if heard and length is not None and length.metric not in heard:
            assert self.schedule is not None  # noqa: S101
            metrics = ", ".join(sorted(name for name in heard if name.startswith("eval_")))
            raise PlanError(
                f"{self.schedule.where(self._applied + 1)} waits for '{length.metric}', and evaluations give {metrics}."
                "\nName one of these."
            )


def _norm(model: nn.Module, names: frozenset[str]) -> float:
    """The norm of the gradients of some parameters, taken together; 0 where they have none."""
    gradients = (model.get_parameter(name).grad for name in sorted(names))
    return math.sqrt(sum(float(one.detach().float().pow(2).sum()) for one in gradients if one is not None))
