"""One training run from a table of texts to a folder that proves what was frozen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.origin import Origin, origin_of
from frostline.base.files import room_on_disk, use_mask
from frostline.base.json import finite, json_digest, picked, write_json
from frostline.base.logging import get_logger
from frostline.base.sealing import Seal
from frostline.checkpoints.adapters import adapter_values
from frostline.checkpoints.classifier import load_classifier
from frostline.checkpoints.headers import is_adapter
from frostline.checkpoints.quiet_loading import quiet
from frostline.checkpoints.source import Source, locate
from frostline.data.labels import LabelSchema
from frostline.data.messages import counted
from frostline.errors import DivergedError, DriftError, FrostlineError, ModelError, OutputError, PlanError
from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import some
from frostline.evidence.checks.flags import new_but_frozen
from frostline.evidence.inspect.inspection import inspect_model
from frostline.evidence.proof.proof import Proof
from frostline.evidence.proof.run_result import METRICS_FILE
from frostline.freezing.freeze import Freeze
from frostline.plan.describe import describe
from frostline.plan.phase_on_model import compile_schedule
from frostline.plan.plan import Plan
from frostline.plan.presets import schedule_for
from frostline.plan.schedule import Schedule
from frostline.plan.schedule_file import SCHEDULE_FILE, schedule_text
from frostline.runs.adapters import adapt, merge
from frostline.runs.baseline import Baseline
from frostline.runs.card import write_card
from frostline.runs.confusion import metrics_and_tables
from frostline.runs.defaults import TrainingLength, with_usual_rates
from frostline.runs.devices import device_options
from frostline.runs.interrupt import SaveOnInterrupt
from frostline.runs.metrics import best_metric, evaluated
from frostline.runs.outcome import last_loss, shortfall
from frostline.runs.output_folder import OutputFolder
from frostline.runs.patience import Patience, ran_out
from frostline.runs.rows import read_rows, write_held_out
from frostline.runs.tokens import digest_of, tokenised
from frostline.runs.train_result import TrainResult, TrainStart
from frostline.runs.train_settings import TrainSettings
from frostline.training.callback import refuse_nothing_to_train, write_proof
from frostline.training.checkpoints import SealCheckpoints, newest_sound
from frostline.training.phase_state import epochs_if_over

if TYPE_CHECKING:
    import datasets

    from frostline.training.trainer import Trainer


def run_training(
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_start: Callable[[TrainStart], None] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult:
    """Train a text classifier and leave a folder that plain ``from_pretrained`` loads.

    The folder appears when it is complete; until then the work is in ``OUT.partial``, from which an
    interrupted run can be resumed.

    Args:
        settings: What to do.
        out: The folder to leave.
        resume: Whether to go on with an interrupted run of the same settings.
        overwrite: Whether a folder that is there is replaced, once the new one is complete.
        on_start: Called once before the first step.
        callbacks: Further callbacks of the Trainer, such as a progress bar.

    Raises:
        FrostlineError: If settings, data, model or output folder cannot be used.
        DivergedError: If the model ended with numbers that are not finite; it is left all the same.
        DriftError: If a frozen tensor moved; the folder is left all the same, its proof included.
        KeyboardInterrupt: If the run is interrupted; a checkpoint is written before.
    """
    source = locate(settings.model)
    settings = replace(settings, model=source.lasting_name)
    _refuse_adapters(source)
    folder = OutputFolder(out)
    folder.refuse_to_hold_what_is_read(settings)
    room = room_on_disk(out, can_resume=folder.can_go_on)
    with folder.claim(resume=resume, overwrite=overwrite), room:
        try:
            return _run(settings, folder, resume=resume, on_start=on_start, callbacks=callbacks)
        except KeyboardInterrupt:
            kept = folder.last_checkpoint()
            if kept is not None:
                get_logger().warning(f"Stopped; {kept.name} is kept. Go on with the same settings and --resume.")
            raise


def _refuse_adapters(source: Source) -> None:
    if source.folder is not None and is_adapter(source.folder):
        raise ModelError(
            f"The folder '{source.name}' holds adapters, not a whole model to train.\n"
            "Train on one with them merged in: frostline train --merge."
        )


def _run(
    settings: TrainSettings,
    folder: OutputFolder,
    *,
    resume: bool,
    on_start: Callable[[TrainStart], None] | None,
    callbacks: Sequence[TrainerCallback],
) -> TrainResult:
    device_options(settings.device, settings.dtype)  # what this machine lacks is told before anything is read
    read = read_rows(settings)
    train, test, schema = read.train, read.test, read.schema
    model, tokenizer, origin, adapters, schedule = _frozen_model(settings, schema)
    train_set, tokens = tokenised(train, schema, settings, model, tokenizer)
    eval_set = tokenised(test, schema, settings, model, tokenizer)[0] if test is not None else None
    length = TrainingLength.of(model, origin, settings, len(train_set), schedule)
    digests = {"train_digest": digest_of(train_set), "eval_digest": digest_of(eval_set)}
    if settings.peft is not None:
        digests["peft_digest"] = json_digest(adapter_values(Path(settings.peft).expanduser()))
    if schedule is not None:
        digests["schedule_digest"] = json_digest(schedule.to_dict())
    folder.remember(settings.to_dict() | digests | {"chosen": length.chosen})

    checkpoint = newest_sound(folder.checkpoints) if resume else None
    start = TrainStart(
        settings=settings,
        read=read,
        rows=len(train_set),
        eval_rows=len(eval_set) if eval_set is not None else None,
        tokens=tokens,
        inspection=inspect_model(model, origin),
        length=length,
        resumed=checkpoint,
        adapters=adapters,
        schedule=schedule,
    )
    if on_start is not None:
        on_start(start)

    sealing, interrupt = SealCheckpoints(), SaveOnInterrupt()
    trainer = _trainer(start, folder, model, tokenizer, train_set, eval_set, [*callbacks, sealing, interrupt])
    began = time.perf_counter()
    try:
        # A drift is raised once the model is saved; the folder must not be lost with it.
        with interrupt.listening(), quiet(), suppress(DriftError):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Exception as error:
        if checkpoint is None or sealing.stepped or isinstance(error, FrostlineError):
            raise
        # Its files are as they were sealed, so somebody wrote them who is no run.
        reason = " ".join(str(error).split())[:120]
        raise OutputError(f"'{checkpoint}' cannot be gone on from: {reason}\nStart anew by --overwrite.") from error
    best_epoch, metrics = _kept(trainer)
    baseline = Baseline.of(eval_set["labels"][:], schema) if eval_set is not None else None
    result = TrainResult(
        folder=folder.target,
        start=start,
        proof=cast("Proof", trainer.proof),  # train() does not end without one
        metrics=metrics,
        baseline=baseline,
        shortfall=shortfall(
            model,
            loss=last_loss(trainer.state.log_history),
            same_answer=Baseline.of(train_set["labels"][:], schema).metrics["loss"],
            metrics=metrics,
            baseline=baseline,
            rows=start.eval_rows or 0,
            warned=bool(length.warning),
        ),
        train_loss=_train_loss(trainer.state.log_history),
        steps=int(trainer.state.global_step),
        seconds=time.perf_counter() - began,
        best_epoch=best_epoch,
        engine=trainer.engine_report,
        earlier_engine=trainer.earlier_engine_reports,
    )
    trained = result.proof
    if settings.merge:
        model, merged = merge(model, trained)
        result = replace(result, proof=merged)
    seal = _leave(result, folder, model, tokenizer, trainer.state.log_history)
    trained.raise_for_drift()
    result.proof.raise_for_drift()
    _refuse_divergence(model, folder.target)
    return replace(result, digest=seal.digest)


def _frozen_model(
    settings: TrainSettings, schema: LabelSchema
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Origin, str, Schedule | None]:
    """Load the model and freeze it, under a schedule what is frozen in all phases.

    Returns:
        The model, its tokenizer and origin; in words what adapters were put where; and the schedule.
    """
    set_seed(settings.seed)  # the new weights are drawn while the model loads
    model, tokenizer = load_classifier(
        settings.model, trust_remote_code=settings.trust_remote_code, **schema.config_fields
    )
    origin = origin_of(model)
    adapters = ""
    plan, schedule = settings.plan(), None
    if settings.schedule is not None:
        schedule = schedule_for(model, settings.schedule)
        if settings.learning_rate is None:
            schedule = with_usual_rates(model, schedule)
        trains = frozenset().union(*(phase.trains for phase in compile_schedule(model, schedule)))
        plan = Plan(train_only=describe(ModelMap.of(model), trains), frozen_mode=settings.frozen_mode)
    if settings.adapts:
        model, adapters = adapt(model, origin, settings)
        origin = origin_of(model)
        origin = replace(origin, new=origin.new | origin.unknown, unknown=frozenset())
        plan = Plan.of(model, frozen_mode=settings.frozen_mode)
    if plan is not None:
        Freeze(model, plan)
        refuse_nothing_to_train(model, plan)
        if not settings.allow_new_frozen:
            _refuse_new_frozen(model, plan, origin)
    return model, tokenizer, origin, adapters, schedule


def _refuse_new_frozen(model: nn.Module, plan: Plan, origin: Origin) -> None:
    """Look whether a plan that is in force freezes what no checkpoint filled.

    Args:
        model: The model, frozen.
        plan: The plan.
        origin: Where the model's parameters come from.

    Raises:
        PlanError: If it does; the message says what else to freeze.
    """
    case = Case(model, known_origin=origin)
    for finding in new_but_frozen(case):
        rest = describe(case.anatomy, set(case.frozen).difference(finding.names))
        mend = f"Freeze what it has ('{rest}')" if rest else "Let them train, name a checkpoint that has them"
        raise PlanError(
            f"'{origin.source}' lacks {counted(len(finding.names), 'tensor')} that the plan '{plan}' freezes "
            f"({some(finding.names)}): they would stay random.\n{mend}, or pass --allow-new-frozen."
        )


def _refuse_divergence(model: PreTrainedModel, folder: Path) -> None:
    lost = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    if lost:
        raise DivergedError(
            f"The training diverged: {len(lost)} parameters are not finite, {lost[0]} among them ('{folder}').\n"
            "Train again with a lower --lr."
        )


def _trainer(
    start: TrainStart,
    folder: OutputFolder,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_set: datasets.Dataset,
    eval_set: datasets.Dataset | None,
    callbacks: list[TrainerCallback],
) -> Trainer:
    # They take a second to load; what cannot be used is told before.
    from frostline.training.arguments import TrainingArguments
    from frostline.training.trainer import Trainer

    settings = start.settings
    metric, greater = best_metric(start.read.schema.problem_type)
    evaluates = eval_set is not None
    arguments = TrainingArguments(
        output_dir=str(folder.checkpoints),
        frozen_mode=settings.frozen_mode,
        num_train_epochs=start.length.epochs,
        learning_rate=start.length.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=max(32, settings.batch_size),
        seed=settings.seed,
        eval_strategy="epoch" if evaluates else "no",
        save_strategy="epoch",
        save_total_limit=2,  # the one before stays until a new one is sealed
        load_best_model_at_end=evaluates,
        metric_for_best_model=metric if evaluates else None,
        greater_is_better=greater if evaluates else None,
        logging_steps=10,
        logging_nan_inf_filter=False,  # a loss that is no number is said, not smoothed over
        report_to="none",
        disable_tqdm=True,
        label_names=["labels"],  # the forward of a model with adapters does not name them
        **picked(settings, "engine", "store", "store_dir", "store_budget", "store_dtype", "padding_free"),
        **device_options(settings.device, settings.dtype),
    )
    if start.schedule is not None and start.resumed is not None:
        trained = epochs_if_over(start.resumed, start.schedule)
        if trained is not None:  # it was interrupted when all that was left to do was to save the model
            arguments.num_train_epochs = trained
    if settings.patience is not None:
        last_epoch = ran_out(start.resumed, settings.patience) if start.resumed is not None else None
        if last_epoch is not None:  # it was interrupted when all that was left to do was to save the model
            arguments.num_train_epochs = last_epoch
        callbacks.append(Patience(early_stopping_patience=settings.patience))
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=train_set,
        eval_dataset=eval_set,
        processing_class=tokenizer,
        compute_metrics=metrics_and_tables(start.read.schema),
        callbacks=callbacks,
        schedule=start.schedule,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _kept(trainer: Trainer) -> tuple[float | None, dict[str, float]]:
    """Epoch and metrics of the model that is kept, as they were measured when it was the current one."""
    for entry in trainer.state.log_history:
        if entry.get("step") == trainer.state.best_global_step and "eval_loss" in entry:
            return float(entry["epoch"]), evaluated(entry)
    return None, {}


def _train_loss(history: Iterable[Mapping[str, float]]) -> float:
    """Mean loss over all steps, those before an interruption included; each entry is a mean since the one before."""
    total, last = 0.0, 0.0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = entry["step"]
    return total / last


def _leave(
    result: TrainResult,
    folder: OutputFolder,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    history: list[dict[str, float]],
) -> Seal:
    if result.start.settings.max_length is not None:
        tokenizer.model_max_length = result.start.settings.max_length  # so that who loads it cuts texts alike
    with folder.publish() as staged:
        with quiet():
            model.save_pretrained(staged)
            if result.start.settings.leaves_adapters:  # PEFT saves none, and the labels have their names in it
                model.config.save_pretrained(staged)
            tokenizer.save_pretrained(staged)
        write_proof(result.proof, staged)
        write_json(staged / METRICS_FILE, finite(result.to_dict() | {"history": history}))
        if result.start.read.held_out is not None:
            write_held_out(result.start.settings, result.start.read.held_out, staged)
        if result.start.schedule is not None:
            text = schedule_text(result.start.schedule, f"The schedule of this run; from {result.start.schedule.name}")
            (staged / SCHEDULE_FILE).write_text(text, encoding="utf-8")
        write_card(result, staged)
        use_mask(staged)
        seal = Seal.of(staged)
        seal.write(staged)
    return seal
