"""A schedule in force in a training run: flags, rates, and what is proven, phase by phase."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.base.logging import get_logger
from frostline.errors import PlanError
from frostline.evidence.optimizers import inner_optimizer
from frostline.evidence.proof.fingerprint import Fingerprint, fingerprint
from frostline.evidence.proof.phase_proof import PhaseProof
from frostline.plan.phase_on_model import PhaseOnModel
from frostline.plan.schedule import Schedule
from frostline.training.phase_rates import PhaseRates
from frostline.training.phase_state import SavedPhases
from frostline.training.phased_model import PhasedModel, RunFacts, lengths_in
from frostline.training.schedule_progress import Progress, is_lower_better

if TYPE_CHECKING:
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
    """A schedule in force in the runs of one model.

    What trains is a pure function of the steps that were taken and of what `SavedPhases` holds.

    Args:
        phased: The model under the schedule.
        on_switch: Is called once something else trains from the next step on.

    Attributes:
        proofs: Those of the phases that are over.
        seconds: What fingerprints took since the run began.
        rates: The rates, in force while the optimizer steps.
    """

    def __init__(self, phased: PhasedModel, on_switch: Callable[[Span], None] | None) -> None:
        self._phased = phased
        self._on_switch = on_switch
        self.proofs: list[PhaseProof] = []
        self.seconds = 0.0
        self.rates = PhaseRates()
        self._progress = Progress()
        self._lengths: list[int | None] = []
        self._applied = 0  # the place of the phase whose flags are in force
        self._from_step = 0  # at which it began
        self._before: Fingerprint | None = None  # as it was then; None until it is known, and once it was compared
        self._factors: dict[nn.Parameter, float] | None = None
        self._run = RunFacts(0, 0.0, 0, None, evaluates=False, tells=False)  # until one begins
        self._heard: set[str] = set()  # metrics of evaluations since the last step

    @property
    def is_over(self) -> bool:
        """Whether the last phase is over."""
        return self._progress.phase >= len(self._phased.phases)

    @property
    def _current(self) -> PhaseOnModel:
        return self._phased.phases[self._applied]

    def begin(self, run: RunFacts, optimizer: Any, saved: SavedPhases | None, step: int = 0) -> None:
        """Begin a run, or go on with one, and put the flags of its next step in force.

        Args:
            run: The run.
            optimizer: Its optimizer.
            saved: How far the run had come that it goes on with; None for a run from the start.
            step: Optimizer steps that were taken by then.

        Raises:
            PlanError: If the schedule does not fit the run, or the optimizer lacks what a later phase trains.
        """
        self.rates.take_away()
        self._phased.refuse_other_optimizer(optimizer)
        self._run, self.seconds, self._heard = run, 0.0, set()
        self._progress = Progress() if saved is None else saved.progress
        if not self.is_over:
            self._lengths = lengths_in(self._phased.schedule, run)
        if saved is None:
            self.proofs, self._applied, self._from_step, self._before = [], 0, 0, None
            self._put(self._wanted(0))
            self._tell()
        else:
            self.proofs, self._applied = list(saved.proofs), saved.applied
            self._from_step, self._before = saved.from_step, saved.before
            self._put(saved.trains)
        self._call(self._progress.began)
        if saved is not None:
            self.before_step(step, optimizer)

    def start_proof(self, before: Fingerprint) -> None:
        """Take a fingerprint as that of the phase's start, unless an earlier run left one."""
        if self._before is None:
            self._before = before

    def before_step(self, step: int, optimizer: Any) -> bool:
        """Put in force what trains in the next step.

        Args:
            step: Optimizer steps that were taken.
            optimizer: The optimizer.

        Returns:
            Whether it is the first of a phase.

        Raises:
            PlanError: If evaluations do not give the metric of a plateau.
        """
        self._refuse_unheard()
        if self.is_over:
            return False
        phase = self._progress.phase
        is_first = phase != self._applied
        if is_first:
            after = self._fingerprint()
            self._close(step, after)
            self._applied, self._from_step, self._before = phase, step, after
            self._tell()
        wanted = self._wanted(step)
        changes = wanted != self._phased.trains
        if changes:
            thawed = wanted - self._phased.trains if self.schedule.optimizer_state == "reset" else ()
            self._put(wanted)
            for name in thawed:
                inner_optimizer(optimizer).state.pop(self._phased.model.get_parameter(name), None)
        if is_first:
            self._factors = None
        if is_first or (changes and not self._draws):  # for what is drawn for some steps nothing is prepared
            self._call(step)
        return is_first

    def put_rates(self, step: int, optimizer: Any) -> None:
        """Put the phase's rates in force for one step of the optimizer, and note the norms of its gradients."""
        phase, model = self._current, self._phased.model
        if phase.phase.choice is not None and not self._draws:
            self._progress.note_norms([_norm(model, names) for names in phase.layers])
        if not phase.rates and phase.phase.layer_decay is None and phase.phase.warmup is None:
            self.rates.highest = None
            return
        real = inner_optimizer(optimizer)
        if self._factors is None:
            bases = {
                parameter: float(group.get("initial_lr", self._run.rate))
                for group in real.param_groups
                for parameter in group["params"]
            }
            named = {name: model.get_parameter(name) for name in self._phased.trains}
            self._factors = {one: phase.factor(name, bases[one]) for name, one in named.items()}
        self.rates.put(real, self._factors, self._warmup(step - self._progress.began))

    def after_step(self, step: int) -> None:
        """Note that a step was taken."""
        choice = self._current.phase.choice
        if choice is not None and not self._draws and (step - self._progress.began) % choice.every == 0:
            self._progress.settle()
        self._progress.advance(step, self._lengths)

    def note_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note what an evaluation gave, as far as the phase waits for it."""
        length = self._current.phase.length
        if length is None or length.kind != "plateau" or self._progress.phase != self._applied:
            return
        self._heard |= metrics.keys()
        if length.metric in metrics:
            lower, patience = is_lower_better(length.metric), int(length.amount)
            self._progress.note_evaluation(step, float(metrics[length.metric]), patience=patience, lower=lower)

    def to_save(self) -> dict[str, Any]:
        """How far the schedule has come, as plain values for a checkpoint."""
        saved = SavedPhases(
            self._progress, self._applied, self._phased.trains, self._from_step, self._before, tuple(self.proofs)
        )
        return saved.to_dict(self.schedule)

    @property
    def schedule(self) -> Schedule:
        """The schedule."""
        return self._phased.schedule

    def end(self, step: int) -> None:
        """Prove the last phase, before other weights are put in the place of those that it ended with."""
        if self._before is not None:
            self._close(step, self._fingerprint())

    def frozen_throughout(self) -> frozenset[str]:
        """Names of the tensors that had to stay in every phase that was run."""
        found = [self._phased.frozen_in(proof.number - 1) for proof in self.proofs]
        return frozenset.intersection(*found) if found else frozenset()

    @property
    def _draws(self) -> bool:
        """Whether layers are drawn in the phase whose flags are in force."""
        choice = self._current.phase.choice
        return choice is not None and choice.random is not None

    def _close(self, step: int, after: Fingerprint) -> None:
        if self._before is not None and step > self._from_step:
            proof = PhaseProof.of(
                self._before,
                after,
                self._phased.frozen_in(self._applied),
                self._current.trains,
                number=self._applied + 1,
                train=self._current.phase.train,
                from_step=self._from_step,
                to_step=step,
            )
            self.proofs.append(proof)
            log = get_logger().warning if proof.drifted else get_logger().info
            log("Proof: %s", proof)
        self._before = None

    def _fingerprint(self) -> Fingerprint:
        began = time.perf_counter()
        found = fingerprint(self._phased.model)
        self.seconds += time.perf_counter() - began
        return found

    def _put(self, names: frozenset[str]) -> None:
        self._phased.train(names)
        self._factors = None

    def _wanted(self, step: int) -> frozenset[str]:
        return self._current.training_at(step - self._progress.began, self._run.seed, self._progress.settled)

    def _call(self, began: int) -> None:
        """Say from which step on something else trains."""
        if self._on_switch is not None:
            self._on_switch(Span(began, self._end(), stores=not self._draws))

    def _end(self) -> int:
        """The step at which the current phase ends, as far as that is known; else that at which the run does."""
        length = self._lengths[self._applied] if self._lengths else None
        return self._run.steps if length is None else min(self._run.steps, self._progress.began + length)

    def _tell(self) -> None:
        if self._run.tells:
            phases = len(self._phased.phases)
            get_logger().info("Phase %d of %d: %s.", self._applied + 1, phases, self._current.phase)

    def _warmup(self, step: int) -> float:
        """What the rates of a step, counted from the phase's first, are multiplied by."""
        given = self._current.phase.warmup
        if given is None:
            return 1.0
        steps = given if given >= 1 else round(given * (self._end() - self._progress.began))
        return min(1.0, (step + 1) / (steps + 1))

    def _refuse_unheard(self) -> None:
        """Look whether evaluations gave the metric that the phase waits for."""
        length = self._current.phase.length
        heard, self._heard = self._heard, set()
        if heard and length is not None and length.metric not in heard:
            metrics = ", ".join(sorted(name for name in heard if name.startswith("eval_")))
            where = self._phased.schedule.where(self._applied + 1)
            raise PlanError(f"{where} waits for '{length.metric}', and evaluations give {metrics}.\nName one of these.")


def _norm(model: nn.Module, names: frozenset[str]) -> float:
    """The norm of the gradients of some parameters, taken together; 0 where they have none."""
    gradients = (model.get_parameter(name).grad for name in sorted(names))
    return math.sqrt(sum(float(one.detach().float().pow(2).sum()) for one in gradients if one is not None))
