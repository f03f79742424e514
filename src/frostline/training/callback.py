"""Freezing and proof as a callback, for those who keep their own ``transformers.Trainer``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.wrappers import refuse_no_module
from frostline.base.json import read_json, write_json
from frostline.base.logging import get_logger
from frostline.errors import PlanError, SettingsError
from frostline.evidence.probe.movement import Probe
from frostline.evidence.proof.fingerprint import Fingerprint, fingerprint, frozen_names
from frostline.evidence.proof.proof import Proof, compare
from frostline.evidence.proof.run_result import PROOF_FILE
from frostline.freezing.freeze import Freeze
from frostline.freezing.mode import follow_flags, is_pinned
from frostline.plan.describe import describe
from frostline.plan.plan import FrozenMode, Plan
from frostline.plan.presets import schedule_for
from frostline.training.first_step import FirstStep, can_be_watched
from frostline.training.phase_state import PHASES_FILE, SavedPhases
from frostline.training.phased import PhasedRun, Span
from frostline.training.phased_model import PhasedModel, RunFacts, steps_per_epoch

FINGERPRINT_FILE = "fingerprint.json"


@dataclass(slots=True)
class _Run:
    """What is known from the start of a training run."""

    before: Fingerprint  # with what was frozen then
    started: float  # seconds, of a monotonic clock
    seconds: float  # spent on fingerprints
    from_step: int  # the optimizer step that `before` is of


class FreezeCallback(TrainerCallback):
    """Freezes a Trainer's model and proves at the end of training that the frozen part stayed as it was.

    The model is frozen as soon as the Trainer is built, so before it makes its optimizer. Without
    selectors the model is taken as it stands, its flags set by hand or by `frostline.freeze`; nothing in it
    need train as long as nothing is trained. The first step of a run is watched, and a line says where what
    moved in it is not what the flags say.

    Args:
        freeze: What is frozen, as a selector.
        train_only: What trains, as a selector; not together with `freeze`.
        frozen_mode: ``"eval"`` keeps frozen modules in eval mode although the Trainer calls
            ``model.train()`` on every step; ``"train"`` lets them follow it.
        raise_on_drift: Whether a frozen tensor that moved raises `DriftError` at the end of training.
        probe: Whether the first step is watched.
        proof_file: Whether the end of training writes ``proof.json`` into the output folder.
        schedule: What trains phase by phase, in the place of `freeze` and `train_only`: a list of `Phase`, the name of
            a preset, or a TOML file.

    Attributes:
        proof: The proof of the last training run; None before the first has ended.
        phases: The schedule in force; None without one, and before a model is known.
        on_switch: Called once something else trains from the next step on; None for nothing.
        guard: Called when the proof is made, for what it is to say of the run's fast paths; None for nothing.
        resumed_from: The checkpoint that training goes on from, where it is not in the output folder.
        first_step: What the first step of the last training run, or of its last phase, changed; None where it was not
            watched, or was too large to be copied.

    Raises:
        PlanError: If both selectors are given, or one and a schedule, or they leave nothing to train; when training
            begins, also where the flags of the model leave nothing, and where the schedule does not fit the run.
    """

    def __init__(
        self,
        freeze: str | None = None,
        *,
        train_only: str | None = None,
        frozen_mode: FrozenMode = "eval",
        raise_on_drift: bool = True,
        probe: bool = True,
        proof_file: bool = True,
        schedule: Any = None,
    ) -> None:
        wanted = freeze is not None or train_only is not None
        if wanted and schedule is not None:
            raise PlanError(
                "Both a schedule and freeze or train_only say what trains.\nGive one; a phase names what trains in it."
            )
        self._schedule = schedule
        self.phases: PhasedRun | None = None
        self.on_switch: Callable[[Span], None] | None = None
        self.plan = Plan(freeze, train_only, frozen_mode) if wanted else None
        self.proof: Proof | None = None
        self.guard: Callable[[], dict[str, Any] | None] | None = None
        self.first_step: Probe | None = None
        self._probe = probe
        self._proof_file = proof_file
        self._watched: FirstStep | None = None
        self._frozen_mode = frozen_mode
        self._raise_on_drift = raise_on_drift
        self.resumed_from: Path | None = None
        self._applied_to: nn.Module | None = None
        self._beside: Freeze | None = None  # until it was said what is frozen beside its plan
        self._run: _Run | None = None

    @property
    def is_running(self) -> bool:
        """Whether a training run has begun and was not proven."""
        return self._run is not None

    def apply(self, model: nn.Module) -> None:
        """Freeze a model as planned; doing it again to the same model changes nothing.

        Raises:
            SelectorError: If a selector does not fit the model.
            PlanError: If a plan was given that leaves nothing to train, or a schedule that is none.
        """
        if self._schedule is not None:
            if model is not self._applied_to:
                phased = PhasedModel(model, schedule_for(model, self._schedule), self._frozen_mode)
                self.phases = PhasedRun(phased, self.on_switch)
            self._applied_to = model
            return
        # What was frozen by hand is a plan as well: it is kept in eval mode, and saved beside the weights.
        plan = self.plan or Plan.of(model, frozen_mode=self._frozen_mode)
        if plan is not None and model is not self._applied_to:
            self._beside = Freeze(model, plan)
        else:
            follow_flags(model, stay_in_eval=self._frozen_mode == "eval")
        self._applied_to = model
        if self.plan is not None:
            refuse_nothing_to_train(model, self.plan)

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Freeze the model that the Trainer was given."""
        self.apply(module_in(kwargs))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze the model if it is a new one, and take the fingerprint that the proof starts from.

        Raises:
            PlanError: If every parameter is frozen, or the schedule does not fit the run or its checkpoint.
            SettingsError: If there is a schedule, and the parameters are spread over processes.
        """
        model = module_in(kwargs)
        self.apply(model)
        checkpoint = (self.resumed_from or checkpoint_folder(args, state)) if state.global_step else None
        if self.phases is not None:
            self._begin_phases(self.phases, model, args, state, checkpoint, kwargs)
        refuse_nothing_to_train(model, self.plan)
        if state.is_world_process_zero:
            self._say_what_has_no_effect(model)
        started = time.perf_counter()
        resumed = None if checkpoint is None else _resumed_fingerprint(checkpoint, state, model)
        before, step = resumed or (fingerprint(model), state.global_step)
        self._run = _Run(before, started, time.perf_counter() - started, step)
        if self.phases is not None:
            self.phases.start_proof(before)
        self._watch(model)

    def _begin_phases(
        self,
        phases: PhasedRun,
        model: nn.Module,
        args: TrainingArguments,
        state: TrainerState,
        checkpoint: Path | None,
        given: Mapping[str, Any],
    ) -> None:
        if not can_be_watched(model):
            raise SettingsError(
                "A schedule changes what trains, and FSDP or DeepSpeed has spread the parameters over processes.\n"
                "Train with DistributedDataParallel, or with one plan: freeze=…"
            )
        run = RunFacts(
            seed=args.seed,
            rate=float(args.learning_rate),
            steps=state.max_steps,
            per_epoch=steps_per_epoch(given["train_dataloader"], args.gradient_accumulation_steps),
            evaluates=args.eval_strategy != "no",
            tells=state.is_world_process_zero,
        )
        saved = None if checkpoint is None else SavedPhases.read(checkpoint, phases.schedule)
        phases.begin(run, given["optimizer"], saved, state.global_step)
        if phases.is_over and state.global_step < state.max_steps:  # the Trainer would take one more step
            raise PlanError(f"The schedule was over at step {state.global_step}: nothing is left to train.")

    def _watch(self, model: nn.Module) -> None:
        """Watch the next step."""
        self.first_step = None
        # Sharded parameters are no tensors of the model while the optimizer steps.
        self._watched = FirstStep() if self._probe and can_be_watched(model) else None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin a phase where the one before is over."""
        if self.phases is not None and self.phases.before_step(state.global_step, kwargs["optimizer"]):
            self._watch(module_in(kwargs))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the step, and stop training once the last phase is over."""
        if self.phases is not None:
            self.phases.after_step(state.global_step)
            control.should_training_stop = control.should_training_stop or self.phases.is_over

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note what a phase waits for, and stop training once the last phase is over."""
        if self.phases is not None and self.is_running:
            self.phases.note_evaluation(state.global_step, kwargs["metrics"])
            control.should_training_stop = control.should_training_stop or self.phases.is_over

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Prove the last phase once the Trainer sums up: behind that it loads the best weights, of whatever phase."""
        if self.phases is not None and self.is_running and "train_loss" in kwargs["logs"]:
            self.phases.end(state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the rates of a phase in force, and look at the first step before it is taken."""
        if self.phases is not None:
            self.phases.put_rates(state.global_step, kwargs["optimizer"])
        if self._watched is not None:
            self._watched.before(module_in(kwargs), kwargs["optimizer"])

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the first step after it was taken, and say where it contradicts the flags."""
        if self._watched is not None:
            self._judge(self._watched, state, kwargs)
        if self.phases is not None:
            self.phases.rates.take_away()

    def _judge(self, watched: FirstStep, state: TrainerState, kwargs: Mapping[str, Any]) -> None:
        watched.after(module_in(kwargs), kwargs["optimizer"])
        self.first_step = watched.probe
        if watched.surprises and state.is_world_process_zero:
            steps = f"First {watched.looks} steps" if watched.looks > 1 else "First step"
            get_logger().warning("%s: %s", steps, "; ".join(watched.surprises))
        if watched.done:
            self._watched = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the starting fingerprint into the checkpoint, so that a resumed run proves the whole of it."""
        folder = checkpoint_folder(args, state)
        if self._run is not None and state.is_world_process_zero and folder.is_dir():
            text = json.dumps(self._run.before.to_dict() | {"from_step": self._run.from_step})
            (folder / FINGERPRINT_FILE).write_text(text, encoding="utf-8")
            if self.phases is not None:
                write_json(folder / PHASES_FILE, self.phases.to_save(), indent=None)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prove the run: say it in one line, and write ``proof.json`` into the output folder, unless told otherwise.

        Raises:
            DriftError: If a frozen tensor moved, unless the callback was told not to raise.
        """
        if self._run is None:
            return
        model, run = module_in(kwargs), self._run
        began = time.perf_counter()
        stay = None if self.phases is None else self.phases.frozen_throughout()
        proof = compare(run.before, fingerprint(model), ModelMap.of(model), stay)
        now = time.perf_counter()
        seconds = run.seconds + now - began + (self.phases.seconds if self.phases is not None else 0.0)
        self.proof = replace(
            proof,
            seconds=seconds,
            share=seconds / (now - run.started),
            from_step=run.from_step,
            guard=self.guard() if self.guard is not None else None,
            phases=tuple(self.phases.proofs) if self.phases is not None else (),
        )
        self._run = None
        if state.is_world_process_zero:
            get_logger().info("Proof: %s (%s)", self.proof, self.proof.cost)
            if self._proof_file:
                write_proof(self.proof, Path(str(args.output_dir)))
        if self._raise_on_drift and self.proof.drifted_while_frozen:
            self.proof.raise_for_drift()

    def _say_what_has_no_effect(self, model: nn.Module) -> None:
        """Say, once per model, what a plan does not thaw; and where noise on embeddings is asked for in vain."""
        beside = self._beside.frozen_beside if self._beside is not None else frozenset()
        self._beside = None
        if beside:
            anatomy = ModelMap.of(model)
            meant = beside | {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            get_logger().info(
                "Plan: an earlier plan froze %s, which '%s' does not name: it stays frozen. To train it, give "
                "train_only='%s' instead.",
                describe(anatomy, beside),
                self.plan,
                describe(anatomy, meant),
            )
        for module in model.modules():
            alpha = vars(module).get("neftune_noise_alpha")  # as transformers leaves it on the embeddings
            if alpha is not None and is_pinned(module):
                get_logger().warning(
                    "NEFTune: neftune_noise_alpha=%s adds no noise, as the embeddings are frozen and stay in eval "
                    "mode. With frozen_mode='train' it does.",
                    alpha,
                )


def module_in(given: Mapping[str, Any]) -> nn.Module:
    """The module that trains, among what a Trainer gives to a callback: ``model``, or SetFit's ``st_model``.

    Raises:
        ModelError: If neither is a module.
    """
    model = given["model"]
    # SetFit hands over its model of two parts, which is no module, and the sentence encoder that its Trainer trains.
    body = given.get("st_model")
    refuse_no_module(model if body is None else body)
    return cast("nn.Module", model if body is None else body)


def refuse_nothing_to_train(model: nn.Module, plan: Plan | None) -> None:
    """Look whether a plan that is in force leaves anything.

    Raises:
        PlanError: If every parameter is frozen.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        if plan is not None:
            said, mend = f"The plan '{plan}' leaves", "Leave at least the head: 'backbone'."
        else:
            said, mend = "The flags of the model leave", "Let the head train at least: train_only='head'."
        raise PlanError(f"{said} nothing to train: every parameter is frozen.\n{mend}")


def write_proof(proof: Proof, folder: Path) -> None:
    """Write a proof into a folder, as ``proof.json``; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PROOF_FILE, proof.to_dict(), ensure_ascii=True)


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the checkpoint of the current step is, or would be."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _resumed_fingerprint(checkpoint: Path, state: TrainerState, model: nn.Module) -> tuple[Fingerprint, int] | None:
    """The starting fingerprint of the run that this one goes on with, and its step; None where it is not known."""
    file = checkpoint / FINGERPRINT_FILE
    try:
        values = read_json(file)
        before, step = Fingerprint.from_dict(values), int(values.get("from_step", 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        get_logger().warning("No %s: the proof covers the run from step %d on.", file, state.global_step)
        return None
    if before.frozen is None:  # written by an earlier release
        get_logger().warning("%s does not say what was frozen: the proof goes by what is frozen now.", file)
        before = replace(before, frozen=frozen_names(model))
    return before, step
