"""``transformers.Trainer``, drop-in, that keeps frozen what is frozen and proves it."""

from __future__ import annotations

import inspect
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers

from frostline.anatomy.wrappers import refuse_no_module
from frostline.compat.trainer import OpenTrainer
from frostline.engine.behind_mask import PaddingRead
from frostline.engine.settings import EngineSettings
from frostline.errors import PlanError
from frostline.training.callback import FreezeCallback, write_proof
from frostline.training.delta_checkpoints import has_delta, keep_delta, refuse_without_base, restore_delta
from frostline.training.engine_callback import EngineCallback
from frostline.training.gradients import WithGradients, cleared_quickly
from frostline.training.padding import at_once
from frostline.training.phase_state import SavedPhases
from frostline.training.renamed import load_renamed
from frostline.training.views import ViewsCallback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel

    from frostline.engine.settings import StoreWhere
    from frostline.evidence.probe.movement import Probe
    from frostline.evidence.proof.proof import Proof
    from frostline.plan.plan import FrozenMode
    from frostline.training.engine_report import EngineReport

_UPSTREAM = inspect.signature(transformers.Trainer.__init__)
_TRAIN = inspect.signature(transformers.Trainer.train)


class Trainer(OpenTrainer):
    """``transformers.Trainer`` with a plan.

    Takes every argument of ``transformers.Trainer``, in the same order, and seven keywords. Each may be
    given as a field of `frostline.TrainingArguments` instead, which has the other settings of the engine as well.
    Without a plan the model is taken as it stands; what is frozen in it is kept in eval mode and proven just the same.
    Where all of it is frozen, it can be evaluated and cannot be trained.
    Every step runs on the fast paths that a self-check finds exact for the model.

    Args:
        *arguments: As for ``transformers.Trainer``.
        freeze: What is frozen, as a selector: ``"embeddings, layers[:8]"``.
        train_only: What trains, as a selector; all else is frozen. Not together with `freeze`.
        schedule: What trains phase by phase, in the place of `freeze` and `train_only`: a list of `Phase`, the name of
            a preset, or a TOML file.
        frozen_mode: ``"eval"`` (the default) or ``"train"``.
        probe: Whether the first step is watched, of each phase, unless told; a line says where what moved in it is not
            what the flags say.
        engine: Whether fast paths are taken, which they are unless told.
        store: Where activations of the frozen part are kept: ``"auto"``, ``"off"``, ``"memory"`` or ``"disk"``.
        **options: As for ``transformers.Trainer``.

    Raises:
        ModelError: If the model is no module.
        SelectorError: If a selector cannot be read or does not fit the model.
        PlanError: If the plan contradicts itself, or leaves nothing to train; or the schedule is none.
        SettingsError: If checkpoints are to be deltas and the model was loaded from none, or if a setting of the
            engine is none.
    """

    def __init__(
        self,
        *arguments: Any,
        freeze: str | None = None,
        train_only: str | None = None,
        schedule: Any = None,
        frozen_mode: FrozenMode | None = None,
        probe: bool | None = None,
        engine: bool | None = None,
        store: StoreWhere | None = None,
        **options: Any,
    ) -> None:
        upstream = _UPSTREAM.bind(self, *arguments, **options).arguments
        del upstream["self"]
        if upstream.get("model") is not None:
            refuse_no_module(upstream["model"])
        fields = upstream.get("args")
        mode: FrozenMode = frozen_mode or getattr(fields, "frozen_mode", None) or "eval"
        self._freeze_callback = FreezeCallback(
            freeze=_one("freeze", freeze, getattr(fields, "freeze", None)),
            train_only=_one("train_only", train_only, getattr(fields, "train_only", None)),
            schedule=_one("schedule", schedule, getattr(fields, "schedule", None)),
            frozen_mode=mode,
            raise_on_drift=False,  # train() raises once the model is saved
            proof_file=False,  # it goes where the weights go that it speaks of
            probe=getattr(fields, "probe", True) if probe is None else probe,
        )
        views: int | None = getattr(fields, "store_views", None)
        self._views = ViewsCallback(views, _seed_of(fields))
        self._fast = EngineCallback(_engine_settings(fields, store), is_random=mode == "train", views=views)
        self._freeze_callback.guard = lambda: self._fast.guard
        self._freeze_callback.on_switch = self._fast.begin_anew
        upstream["callbacks"] = [self._freeze_callback, self._views, self._fast, *(upstream.get("callbacks") or [])]
        super().__init__(**upstream)
        self._fast.off = _why_off(self, wanted=getattr(fields, "engine", True) if engine is None else engine)
        self._operations: tuple[nn.Module, int] | None = None  # of which model, per token
        self._save_deltas = bool(getattr(fields, "save_deltas", False))
        if self._save_deltas:
            refuse_without_base(cast("nn.Module", self.model))

    @property
    def proof(self) -> Proof | None:
        """The proof of the last training run; None before the first has ended."""
        return self._freeze_callback.proof

    @property
    def first_step(self) -> Probe | None:
        """What the first step of the last training run changed; None where it was not watched."""
        return self._freeze_callback.first_step

    @property
    def engine_report(self) -> EngineReport | None:
        """What the engine does in the last training run; None before its first step, and where it is off."""
        return self._fast.report

    @property
    def earlier_engine_reports(self) -> tuple[tuple[int, EngineReport], ...]:
        """What it did in earlier phases of that run: with each report the optimizer steps by which the phase ended."""
        return tuple(self._fast.earlier)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **options: Any) -> torch.Tensor:
        """Take one step as ``transformers.Trainer`` does, on the fast paths."""
        if self._fast.is_due:
            self._fast.begin(self, model, inputs)
        with self._fast.active(model):
            try:
                return super().training_step(model, inputs, *arguments, **options)
            except PaddingRead as read:  # before any gradient of the model was taken
                self._fast.take_back(str(read))
            return super().training_step(model, inputs, *arguments, **options)

    def prediction_step(self, model: nn.Module, *arguments: Any, **options: Any) -> Any:
        """Run one batch as ``transformers.Trainer`` does, on the fast paths."""
        with self._fast.active(model):
            return super().prediction_step(model, *arguments, **options)

    def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate as ``transformers.Trainer`` does, with nothing stored that the weights no longer give."""
        self._fast.refresh()
        return super().evaluation_loop(*arguments, **options)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Give the training batches of ``transformers.Trainer``, padded in less time.

        Raises:
            SettingsError: If ``store_views`` is given, and the rows are a stream.
        """
        given = self.train_dataset
        self.train_dataset = self._views.of(given)
        try:
            with self._padding_at_once():
                return super().get_train_dataloader()
        finally:
            self.train_dataset = given

    def get_eval_dataloader(self, *arguments: Any, **options: Any) -> DataLoader[Any]:
        """Give the evaluation batches of ``transformers.Trainer``, padded in less time."""
        with self._padding_at_once():
            return super().get_eval_dataloader(*arguments, **options)

    def get_test_dataloader(self, *arguments: Any, **options: Any) -> DataLoader[Any]:
        """Give the test batches of ``transformers.Trainer``, padded in less time."""
        with self._padding_at_once():
            return super().get_test_dataloader(*arguments, **options)

    @contextmanager
    def _padding_at_once(self) -> Iterator[None]:
        given = self.data_collator
        if self._fast.off is None:
            self.data_collator = at_once(given)
        try:
            yield
        finally:
            self.data_collator = given

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count as ``transformers.Trainer`` does, which goes through all parameters: once per model."""
        model = cast("nn.Module", self.model)
        given = inputs.get(getattr(model, "main_input_name", "input_ids"))
        tokens = given.numel() if isinstance(given, torch.Tensor) else 0
        if not tokens:
            return super().floating_point_ops(inputs)
        if self._operations is None or self._operations[0] is not model:
            self._operations = model, super().floating_point_ops(inputs) // tokens
        return self._operations[1] * tokens

    def clip_gradients(self, model: nn.Module) -> Any:
        """Clip as ``transformers.Trainer`` does, which looks at all parameters: only at those with a gradient."""
        return super().clip_gradients(WithGradients.of(model) if self._fast.off is None else model)

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Log as ``transformers.Trainer`` does; of a phase with rates of its own the highest that was in force."""
        phases = self._freeze_callback.phases
        if phases is not None and phases.rates.highest is not None and "learning_rate" in logs:
            logs = logs | {"learning_rate": phases.rates.highest}
        super().log(logs, *arguments, **options)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make a new model, frozen as planned before an optimizer is made for it."""
        model: nn.Module = super().call_model_init(trial)
        self._freeze_callback.apply(model)
        return model

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as ``transformers.Trainer`` does; a checkpoint as a delta where the arguments say so.

        After training, ``proof.json`` goes beside the weights.
        """
        super().save_model(output_dir, _internal_call)
        if not self.args.should_save:
            return
        if self._save_deltas and _internal_call and output_dir is not None:
            keep_delta(Path(output_dir), str(cast("PreTrainedModel", self.model).name_or_path))
        if self.proof is not None and not self._freeze_callback.is_running:
            write_proof(self.proof, Path(str(self.args.output_dir if output_dir is None else output_dir)))

    def load_weights(self, checkpoint: str, model: nn.Module | None) -> None:
        """Load a checkpoint's weights as ``transformers.Trainer`` does, or its delta.

        Raises:
            PlanError: If it is a checkpoint of another schedule.
        """
        if self._freeze_callback.phases is not None:  # before the optimizer's state, which would be said not to fit
            SavedPhases.read(Path(checkpoint), self._freeze_callback.phases.schedule)
        into = cast("nn.Module", self.model if model is None else model)
        if has_delta(checkpoint):
            restore_delta(into, checkpoint)
        else:
            super().load_weights(checkpoint, model)
            load_renamed(into, checkpoint)

    def load_best_weights(self) -> None:
        """Load the best checkpoint's weights as ``transformers.Trainer`` does, or its delta."""
        if has_delta(self.state.best_model_checkpoint):
            restore_delta(cast("nn.Module", self.model), str(self.state.best_model_checkpoint))
        else:
            super().load_best_weights()
            load_renamed(cast("nn.Module", self.model), str(self.state.best_model_checkpoint))

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train as ``transformers.Trainer`` does, then prove the run.

        Raises:
            DriftError: If a frozen tensor moved; the model is saved in the output folder before, beside its proof.
            PlanError: If every parameter is frozen.
        """
        given = _TRAIN.bind(self, *arguments, **options).arguments.get("resume_from_checkpoint")
        resumed_from = Path(given) if isinstance(given, str | PathLike) else None
        self._freeze_callback.resumed_from = self._fast.resumed_from = resumed_from
        fast = self._fast.off is None and self.model is not None  # a search has none before its first trial
        with cleared_quickly(cast("nn.Module", self.model)) if fast else nullcontext():
            output = super().train(*arguments, **options)
        if self.proof is not None and self.proof.drifted_while_frozen:  # what a callback thawed may move
            self.save_model()
            self.proof.raise_for_drift()
        return output


def _engine_settings(fields: Any, store: StoreWhere | None) -> EngineSettings:
    """The settings that the arguments name; those of ``transformers.TrainingArguments`` name none."""
    values = {name: getattr(fields, name) for name in EngineSettings.__slots__ if hasattr(fields, name)}
    if values.get("store_dir") is not None:
        values["store_dir"] = Path(values["store_dir"])
    return EngineSettings(**values | ({"store": store} if store is not None else {}))


def _seed_of(fields: Any) -> int:
    """The seed of the order of rows."""
    seed = getattr(fields, "data_seed", None)
    return int(getattr(fields, "seed", 0) if seed is None else seed)


def _why_off(trainer: transformers.Trainer, *, wanted: bool) -> str | None:
    """Why a Trainer's steps can only be the plain ones; None if they need not."""
    args = trainer.args
    reasons = {
        "it is switched off": not wanted,
        "FSDP spreads the model over processes": trainer.is_fsdp_enabled,
        "DeepSpeed runs the model": trainer.is_deepspeed_enabled,
        f"DataParallel copies the model to {args.n_gpu} devices in each step": args.n_gpu > 1,
        "torch.compile fixes how the model runs": args.torch_compile,
        "the layers of the model lie on several devices": trainer.is_model_parallel,
        "fp8 keeps scales of its own for each layer": trainer.accelerator.mixed_precision == "fp8",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _one(name: str, keyword: Any, field: str | None) -> Any:
    if keyword is not None and field is not None and keyword != field:
        raise PlanError(
            f"{name}={keyword!r} was given to the Trainer, and {name}={field!r} in its arguments.\nGive it once."
        )
    return keyword if keyword is not None else field
