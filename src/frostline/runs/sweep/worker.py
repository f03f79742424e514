"""Runs the trials of a sweep: model, tokens and stores are made once, each run is one of `frostline.Trainer`."""

from __future__ import annotations

import copy
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import DataCollatorWithPadding, PrinterCallback, set_seed

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.origin import origin_of
from frostline.base.files import existing_folder
from frostline.base.json import picked
from frostline.base.peak import freed, peak_memory
from frostline.checkpoints.classifier import load_classifier
from frostline.checkpoints.quiet_loading import quiet
from frostline.checkpoints.source import locate
from frostline.compat.trainer import first_inputs, installed_trackers
from frostline.data.labels import REGRESSION
from frostline.data.parts import held_out
from frostline.engine.known_checks import sharing_checks
from frostline.engine.settings import EngineSettings
from frostline.errors import SettingsError
from frostline.evidence.optimizers import held
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.plan.presets import preset
from frostline.plan.schedule import Schedule
from frostline.runs.defaults import TrainingLength, with_usual_rates
from frostline.runs.devices import device_options
from frostline.runs.metrics import evaluated, metrics_for
from frostline.runs.rows import read_rows
from frostline.runs.sweep.trial import Trial, TrialResult
from frostline.runs.tokens import digest_of, tokenised
from frostline.runs.train_settings import TrainSettings
from frostline.training.shared_pass import SharedPass, fill_frost_lines

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel

    from frostline.engine.known_checks import Known
    from frostline.training.trainer import Trainer

TUNED_ON = 0.8  # of the training rows; the rest is what rates are chosen by
_DISK = 0.5  # of the free space, for the stores of a sweep
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Worker:
    """Runs trials.

    Args:
        settings: What they have in common.
        stores: The folder of the stores that they share.
        tracked: The folder for the files of trackers.

    Attributes:
        stores: As given; likewise `tracked`.
        tracked: See there.
        freezes: The plans whose frozen parts are stored, as selectors; none until they are set.
        anatomy: Of the model.
        origin: Where its parameters come from.
        rows: Training rows.
        eval_rows: Evaluation rows.
        digests: Of the training and the evaluation rows, in hex digits.

    Raises:
        FrostlineError: If settings, data or model cannot be used.
    """

    def __init__(self, settings: TrainSettings, stores: Path, tracked: Path) -> None:
        self._settings = replace(settings, model=locate(settings.model).lasting_name)
        self.stores, self.tracked = stores, tracked
        self.freezes: tuple[str, ...] = ()
        self._checks: Known = {}
        read = read_rows(settings)
        if read.schema.problem_type == REGRESSION or read.test is None:
            raise SettingsError(
                "A sweep compares classifiers by accuracy and macro F1, and these labels are values.\n"
                "Pass --problem-type if they are classes."
            )
        self._schema = read.schema
        self._model, self._tokenizer = self._loaded(settings.seed)
        self.anatomy, self.origin = ModelMap.of(self._model), origin_of(self._model)
        self._new: dict[int, dict[str, torch.Tensor]] = {settings.seed: self._new_weights(self._model)}
        self._train = tokenised(read.train, read.schema, settings, self._model, self._tokenizer)[0]
        self._test = tokenised(read.test, read.schema, settings, self._model, self._tokenizer)[0]
        judging = held_out(read.train, read.schema, 1 - TUNED_ON, settings.seed)
        self._judging = self._train.select(judging)
        draw = np.random.default_rng(settings.seed)  # so that a share of them is a part drawn by chance
        self._tuning = draw.permutation(np.setdiff1d(np.arange(len(self._train)), judging))
        self.rows, self.eval_rows = len(self._train), len(self._test)
        self.digests = {"train_digest": digest_of(self._train), "eval_digest": digest_of(self._test)}

    @property
    def may_use_cuda(self) -> bool:
        """Whether it runs on CUDA where there is a device."""
        return self._settings.device in {"auto", "cuda"}

    def usual_rate(self, freeze: str) -> float:
        """The learning rate that `frostline train` chooses for what is frozen."""
        return self._length(freeze, self.rows).learning_rate

    def epochs(self) -> float:
        """Passes over the data of every run."""
        return self._length("", self.rows).epochs

    def _length(self, freeze: str, rows: int) -> TrainingLength:
        frozen = Freeze(self._model, Plan(freeze)) if freeze else None
        try:
            return TrainingLength.of(self._model, self.origin, self._settings, rows)
        finally:
            if frozen is not None:
                frozen.restore()

    def fill(self, told: Callable[[int, int], None] | None = None) -> SharedPass:
        """Fill the stores of all frost lines in one pass over training and evaluation rows.

        Args:
            told: Is called with the rows that are done, and with all of them; None for nothing.
        """
        free = shutil.disk_usage(existing_folder(self.stores)).free
        with tempfile.TemporaryDirectory() as folder, sharing_checks(self._checks), quiet():
            trainer = self._trainer(Trial("", 0.0, self._settings.seed, "all"), folder, self._train, self._test)
            return fill_frost_lines(
                cast("PreTrainedModel", trainer.model),
                self.freezes,
                (self._train, self._test),
                DataCollatorWithPadding(self._tokenizer),
                EngineSettings(**picked(self._settings, "store_dtype", "padding_free")),
                self.stores,
                sample=first_inputs(trainer),
                budget=int(_DISK * free),
                autocast=_AUTOCAST[self._settings.dtype],
                told=told,
            )

    def results(self, trials: Sequence[Trial], report_to: Sequence[str] = ()) -> Iterator[TrialResult]:
        """Run trials, and yield what comes of each as it is done.

        Raises:
            DriftError: If a frozen tensor moved.
        """
        for trial in trials:
            yield self.run(trial, report_to)

    def run(self, trial: Trial, report_to: Sequence[str] = ()) -> TrialResult:
        """Train once, and judge what came of it.

        Raises:
            DriftError: If a frozen tensor moved.
        """
        rows, judged_by = self._train, self._test
        if trial.part == "tuning":
            count = max(1, round(trial.share * len(self._tuning)))
            rows, judged_by = self._train.select(self._tuning[:count]), self._judging
        freed()
        with self._place(trial, report_to) as folder, sharing_checks(self._checks), quiet(), peak_memory() as peak:
            trainer = self._trainer(trial, folder, rows, judged_by, report_to)
            on_cuda = trainer.args.device.type == "cuda"
            if on_cuda:
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - began
        if report_to:
            _end_tracked_run()
        logged = next(entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry)
        trained = {id(parameter) for parameter in held(trainer.optimizer)}  # in any phase
        parameters = cast("PreTrainedModel", trainer.model).parameters()
        sizes = [(parameter.numel(), id(parameter) in trained) for parameter in parameters]
        return TrialResult(
            trial=trial,
            metrics=evaluated(logged),
            seconds=seconds - logged["eval_runtime"],
            peak_bytes=torch.cuda.max_memory_allocated() if on_cuda else peak.rise,
            trainable=sum(size for size, trains in sizes if trains),
            parameters=sum(size for size, _ in sizes),
        )

    @contextmanager
    def _place(self, trial: Trial, report_to: Sequence[str]) -> Iterator[str]:
        """A folder for the Trainer; one that stays where a tracker may write its files there."""
        if report_to:
            yield str(self.tracked / trial.name)
            return
        with tempfile.TemporaryDirectory() as folder:
            yield folder

    def _trainer(
        self,
        trial: Trial,
        folder: str,
        rows: datasets.Dataset,
        judged_by: datasets.Dataset,
        report_to: Sequence[str] = (),
    ) -> Trainer:
        # It takes a second to load.
        from frostline.training.trainer import Trainer

        model = self._fresh(trial.seed)
        schedule = self._schedule(model, trial)
        rate = trial.learning_rate
        if rate is None:
            rate = TrainingLength.of(model, self.origin, self._settings, len(rows), schedule).learning_rate
        trainer = Trainer(
            model=model,
            args=self._arguments(trial, rate, len(rows), folder, report_to),
            freeze=trial.freeze or None,
            schedule=schedule,
            data_collator=DataCollatorWithPadding(self._tokenizer),
            train_dataset=rows,
            eval_dataset=judged_by,
            processing_class=self._tokenizer,
            compute_metrics=metrics_for(self._schema.problem_type),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _schedule(self, model: PreTrainedModel, trial: Trial) -> Schedule | None:
        """What trains phase by phase, as ``frostline train`` has it; None for one plan."""
        if not trial.preset:
            return None
        schedule = preset(model, trial.preset)
        return with_usual_rates(model, schedule) if trial.learning_rate is None else schedule

    def _arguments(self, trial: Trial, rate: float, rows: int, folder: str, report_to: Sequence[str]) -> Any:
        from frostline.training.arguments import TrainingArguments

        settings, epochs = self._settings, self.epochs()
        return TrainingArguments(
            output_dir=folder,
            run_name=f"{trial.preset or trial.freeze or 'nothing frozen'}, seed {trial.seed}",
            num_train_epochs=epochs,
            learning_rate=rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=max(32, settings.batch_size),
            seed=trial.seed,
            # Once, at the last step, as long as the store is open.
            eval_strategy="steps",
            eval_steps=math.ceil(math.ceil(rows / settings.batch_size) * epochs),
            save_strategy="no",
            report_to=list(report_to) or "none",
            disable_tqdm=True,
            label_names=["labels"],
            **picked(settings, "frozen_mode", "engine", "store_dtype", "padding_free"),
            store="disk" if settings.store == "auto" else settings.store,
            store_dir=str(self.stores),
            **device_options(settings.device, settings.dtype),
        )

    def _loaded(self, seed: int) -> tuple[PreTrainedModel, Any]:
        set_seed(seed)  # the new weights are drawn while the model loads
        return load_classifier(
            self._settings.model, trust_remote_code=self._settings.trust_remote_code, **self._schema.config_fields
        )

    def _new_weights(self, model: PreTrainedModel) -> dict[str, torch.Tensor]:
        return {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if name in self.origin.new
        }

    def draw(self, seed: int) -> None:
        """Draw the new weights of a seed, unless that is done."""
        if seed not in self._new:
            self._new[seed] = self._new_weights(self._loaded(seed)[0])

    def _fresh(self, seed: int) -> PreTrainedModel:
        """The model as `frostline train` loads it with a seed."""
        self.draw(seed)
        model = copy.deepcopy(self._model)
        with torch.no_grad():
            for name, value in self._new[seed].items():
                model.get_parameter(name).copy_(value)
        return model


def refuse_unknown_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that transformers does not know, or that are not installed.

    Raises:
        SettingsError: If there is one.
    """
    there = installed_trackers() if names else []
    for name in names:
        if name not in there:
            raise SettingsError(
                f"--report-to names {name!r}, which is none of the trackers installed here "
                f"({', '.join(there) or 'there are none'}).\nInstall it, or leave it out."
            )


def _end_tracked_run() -> None:
    """End the run of Weights & Biases, which the next trial would go on with; other trackers end theirs."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish()
