"""What a plan will cost, reckoned before it is trained: from a configuration, lengths of rows, and a machine."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.origin import Origin, origin_of
from frostline.anatomy.wrappers import unwrap
from frostline.base.files import existing_folder
from frostline.base.json import picked
from frostline.checkpoints.classifier import load_tokenizer, position_limit
from frostline.checkpoints.skeleton import load_config, skeleton
from frostline.checkpoints.source import locate
from frostline.data.tokenising import tokenise
from frostline.engine.cost.basis import cost_basis
from frostline.engine.cost.batch_rows import Rows
from frostline.engine.cost.costs import bytes_text
from frostline.engine.cost.estimate import Cost, cost_of
from frostline.engine.cost.machines import UTILISATION, Speeds, from_figures
from frostline.engine.cost.units import UnitCost, frost_line_of, unit_costs
from frostline.engine.settings import EngineSettings
from frostline.errors import PlanError, SettingsError
from frostline.evidence.inspect.inspection import inspect_model
from frostline.freezing.freeze import Freeze
from frostline.plan.describe import describe
from frostline.plan.plan import Plan
from frostline.runs.adapters import adapt
from frostline.runs.calibration import measured_speeds, product_speeds
from frostline.runs.defaults import usual_epochs
from frostline.runs.devices import device_of
from frostline.runs.estimate_remarks import remarks_on
from frostline.runs.estimate_result import Estimate
from frostline.runs.estimate_settings import HERE, EstimateSettings
from frostline.runs.row_lengths import batches_of, drawn_lengths, typical_batch
from frostline.runs.rows import read_rows
from frostline.runs.thin_model import NotMeasurable
from frostline.runs.train_settings import TrainSettings
from frostline.store.folder import default_folder
from frostline.store.room import free_memory
from frostline.training.filling_pass import lengths_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from datasets import Dataset
    from numpy.typing import NDArray

    from frostline.engine.settings import StoreWhere
    from frostline.plan.plan import FrozenMode

_UNKNOWN = 1 << 60  # so many bytes that all fits
# What a page takes where nothing is said; epochs do not matter for the time of one.
ASSUMED: dict[str, Any] = {"rows": 10_000, "tokens": 128.0, "epochs": 1.0, "device": "t4"}
_WHOLE_LAST = "the whole last layer is run"


def estimate(
    model: nn.Module | str | PathLike[str],
    plan: Plan | None = None,
    *,
    freeze: str | None = None,
    train_only: str | None = None,
    lora: str | None = None,
    rank: int | None = None,
    frozen_mode: FrozenMode = "eval",
    data: str | None = None,
    rows: int | None = None,
    tokens: float | None = None,
    epochs: float | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    dtype: Literal["fp32", "bf16"] = "fp32",
    device: str = HERE,
    flops: float | None = None,
    bandwidth: float | None = None,
    store: StoreWhere = "auto",
    num_labels: int | None = None,
    text_columns: Sequence[str] = ("text",),
    label_columns: Sequence[str] = ("label",),
    trust_remote_code: bool = False,
) -> Estimate:
    """Reckon what a plan will cost before it is trained: time, peak memory, disk, and the break-even of storing.

    Of a name only the configuration is read, and the tokenizer where there are data, so it works for models that do not
    fit here. Speeds are measured on a few layers of the model's width on this machine's processor, which takes
    seconds; or they are those of a machine whose figures are given. Time is that of ``fl.Trainer.train()`` without
    evaluations and checkpoints; memory is what is resident above the libraries.

    Args:
        model: A folder, a hub name, or a model, whose parameters are frozen as they are unless a plan is given.
        plan: What is frozen.
        freeze: The same as a selector; likewise `train_only`.
        train_only: See there.
        lora: Where LoRA goes, as a selector; all else but the head is frozen. Not together with a plan.
        rank: Its rank; None for 8.
        frozen_mode: How frozen modules behave; only in ``"eval"`` mode can what they give be kept.
        data: Where the training rows are, as for ``frostline train``. Not together with `rows` and `tokens`.
        rows: How many rows there are.
        tokens: Mean tokens of a row.
        epochs: Passes over the rows; None to choose as ``frostline train`` does.
        batch_size: Rows per step.
        max_length: Tokens of a row at most.
        dtype: ``"bf16"`` for mixed precision.
        device: ``"cpu"`` for this machine's processor, or the name of a machine whose figures are known:
            ``"a100-80gb"``.
        flops: Peak of another machine's matrix products in `dtype`, FLOPs per second.
        bandwidth: Of its memory, bytes per second.
        store: Where activations of the frozen part are kept.
        num_labels: Width of the head.
        text_columns: Columns of `data`.
        label_columns: Likewise.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        FrostlineError: If model, plan, data or a number cannot be used.
    """
    asked = EstimateSettings(
        data=data,
        rows=rows,
        tokens=tokens,
        epochs=epochs,
        batch_size=batch_size,
        max_length=max_length,
        dtype=dtype,
        device=device,
        flops=flops,
        bandwidth=bandwidth,
        store=store,
        text_columns=tuple(text_columns),
        label_columns=tuple(label_columns),
        trust_remote_code=trust_remote_code,
    )
    plan = plan or Plan.named(freeze, train_only, frozen_mode)
    mode = plan.frozen_mode if plan is not None else frozen_mode
    if isinstance(model, nn.Module):
        if data is not None:
            raise SettingsError("data needs a model by its name, whose tokenizer is read.\nGive rows and tokens.")
        if lora is not None or rank is not None:
            raise SettingsError("A model that is given counts with the adapters that it has.\nLeave out lora and rank.")
        config = getattr(unwrap(model).core, "config", None)
        return _reckoned(model, config, None, plan, mode, asked, _drawn(model, asked))
    fields = {} if num_labels is None else {"num_labels": num_labels}
    lengths = None
    if data is not None:
        lengths, fields = _of_data(fspath(model), asked, fields)
    shapes, config = _skeleton(fspath(model), trust_remote_code, fields)
    if lora is not None or rank is not None:
        ways = {} if plan is None else picked(plan, "freeze", "train_only")  # which are refused beside it
        adapters = TrainSettings(model=fspath(model), data=str(data), lora=lora, rank=rank, **ways)
        shapes, _ = adapt(cast("PreTrainedModel", shapes), origin_of(shapes), adapters)
    lengths = _drawn(shapes, asked) if lengths is None else lengths
    return _reckoned(shapes, config, fspath(model), plan, mode, asked, lengths)


def assumed_costs(model: nn.Module, mode: FrozenMode) -> dict[str, Any]:
    """Draw up what a page reckons plans by where nothing is said of rows and machine, and nothing was measured.

    Args:
        model: Names and shapes.
        mode: How frozen modules behave.

    Returns:
        What `cost_basis` gives for `ASSUMED`, and ``told``, which says so.
    """
    stored = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    asked = EstimateSettings(**ASSUMED, dtype="fp32" if stored == torch.float32 else "bf16")
    basis = _Reckoning.of(model, None, mode, asked, _drawn(model, asked)).basis(model)
    return basis | {
        "told": f"As 'frostline estimate' reckons for {asked.rows:,} rows of {asked.tokens:g} tokens, "
        f"{asked.batch_size} per step, {asked.dtype}, and the data sheet's figures of one machine ({asked.device}). "
        "For your rows and this machine: frostline estimate MODEL --data FILE --html FILE."
    }


@dataclass(frozen=True, slots=True)
class _Reckoning:
    """What plans of one model are reckoned by, on rows of some lengths and one machine.

    Attributes:
        asked: What was asked for.
        mode: How frozen modules behave.
        rows: What is trained on.
        epochs: Passes over them.
        speeds: Of the machine.
        assumptions: What of them was not measured.
        room: Bytes of free memory and of free disk, for a store.
        whole: What each unit weighs and computes where everything trains.
    """

    asked: EstimateSettings
    mode: FrozenMode
    rows: Rows
    epochs: float
    speeds: Speeds
    assumptions: tuple[str, ...]
    room: tuple[int, int]
    whole: tuple[UnitCost, ...]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        config: Any,
        mode: FrozenMode,
        asked: EstimateSettings,
        lengths: NDArray[Any],
        device: torch.device | None = None,
    ) -> _Reckoning:
        """Look up, or measure, what plans are reckoned by.

        Args:
            model: Names and shapes.
            config: Its configuration; None where it has none.
            mode: How frozen modules behave.
            asked: What was asked for.
            lengths: Tokens of each row, int64, (rows,).
            device: Of this machine, where matrix products tell its speeds; None where layers are measured, or figures
                are given.
        """
        with _all_trained(model):
            whole = unit_costs(model)
        rows = batches_of(lengths, asked.batch_size)
        if device is not None:
            speeds, assumptions = _by_products(whole, rows, asked, device), [_WHOLE_LAST]
        else:
            settings = EngineSettings(store=asked.store)
            speeds, assumptions = _speeds(model, config, whole, rows, lengths, asked, settings)
        if asked.data is None:
            assumptions = ["lengths of rows vary about their mean as those of movie reviews do", *assumptions]
        epochs = usual_epochs(rows.steps) if asked.epochs is None else asked.epochs
        return cls(asked, mode, rows, epochs, speeds, tuple(assumptions), _room(asked), whole)

    def cost(self, units: Sequence[UnitCost]) -> Cost:
        """What a plan costs."""
        memory, disk = self.room
        return cost_of(
            units,
            self.rows,
            self.epochs,
            self.speeds,
            EngineSettings(store=self.asked.store),
            keeps=self.mode == "eval",
            is_half=self.asked.dtype != "fp32",
            free_memory=memory,
            free_disk=disk,
        )

    @property
    def everything(self) -> Cost:
        """What training everything costs."""
        return self.cost(self.whole)

    def basis(self, model: nn.Module) -> dict[str, Any]:
        """What a page reckons plans by."""
        return cost_basis(
            model,
            self.rows,
            self.speeds,
            self.everything.times.epoch,
            keeps=self.mode == "eval",
            is_half=self.asked.dtype != "fp32",
        )


def estimate_run(model: nn.Module, settings: TrainSettings, rows: Dataset, epochs: float) -> Estimate | None:
    """Reckon what a run will cost whose model is frozen and whose rows are tokens, in a fraction of a second.

    Speeds are those of matrix products on the run's device.

    Args:
        model: The model of the run.
        settings: Of the run.
        rows: Training rows, tokenised.
        epochs: Passes over them.

    Returns:
        None where the fast paths that are reckoned with are switched off.
    """
    if not (settings.engine and settings.padding_free):
        return None
    asked = EstimateSettings(
        data=settings.data,
        epochs=epochs,
        batch_size=settings.batch_size,
        dtype="fp32" if settings.dtype == "fp32" else "bf16",
        store=settings.store,
    )
    lengths = cast("NDArray[Any]", lengths_of(rows))
    return _reckoned(model, None, None, None, settings.frozen_mode, asked, lengths, device_of(settings.device))


def _reckoned(
    model: nn.Module,
    config: Any,
    name: str | None,
    plan: Plan | None,
    mode: FrozenMode,
    asked: EstimateSettings,
    lengths: NDArray[Any],
    device: torch.device | None = None,
) -> Estimate:
    """Reckon what a plan costs on rows of these lengths.

    Args:
        model: Names and shapes.
        config: Its configuration; None where it has none.
        name: The name that it was given by; None where a model was.
        plan: What is frozen; None to take the model as it is.
        mode: How frozen modules behave.
        asked: What was asked for.
        lengths: Tokens of each row, int64, (rows,).
        device: Of this machine, where matrix products tell its speeds; None where layers are measured, or figures are
            given.
    """
    anatomy = ModelMap.of(model)
    with _frozen(model, plan):
        units = unit_costs(model)
        flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        if frost_line_of(units) is None:
            raise PlanError(
                "Everything is frozen, so there is no training to estimate.\nLet something train: the head."
            )
        # Of the name's weights nothing was read, not even what is there.
        inspection = inspect_model(model, Origin(name, unknown=frozenset(flags)))
    reckoning = _Reckoning.of(model, config, mode, asked, lengths, device)
    own, everything = reckoning.cost(units), reckoning.everything
    return Estimate(
        model_class=anatomy.model_class,
        trains=describe(anatomy, (name for name, trains in flags.items() if trains)),
        freezes=describe(anatomy, (name for name, trains in flags.items() if not trains)),
        rows=reckoning.rows,
        epochs=reckoning.epochs,
        dtype=asked.dtype,
        device=asked.device_name,
        units=units,
        speeds=reckoning.speeds,
        plan=own,
        everything=everything,
        remarks=tuple(remarks_on(units, own, everything, mode, asked.machine, reckoning.room[0])),
        assumptions=reckoning.assumptions,
        inspection=inspection,
        basis=reckoning.basis(model) | {"told": "For the rows and the machine that are named above."},
    )


def _drawn(model: nn.Module, asked: EstimateSettings) -> NDArray[Any]:
    """Lengths of rows of which only the mean is known."""
    limit = min((one for one in (asked.max_length, _limit(model)) if one is not None), default=None)
    return drawn_lengths(asked.rows or 0, asked.tokens or 0.0, limit)  # both are there where no data are


def _skeleton(name: str, trust_remote_code: bool, overrides: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """The model on the meta device, and its configuration, which says how it would attend if it were loaded."""
    config = load_config(locate(name), trust_remote_code=trust_remote_code, **overrides)
    model: nn.Module = skeleton(config, name, trust_remote_code=trust_remote_code)
    return model.to(torch.float32), config  # as train loads it


def _limit(model: nn.Module) -> int | None:
    core = unwrap(model).core
    return position_limit(core) if isinstance(core, PreTrainedModel) else None


def _of_data(name: str, asked: EstimateSettings, fields: Mapping[str, Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Tokens of each row of the data, and what its labels say of the head."""
    settings = TrainSettings(
        model=name,
        data=str(asked.data),
        max_length=asked.max_length,
        text_columns=asked.text_columns,
        label_columns=asked.label_columns,
        trust_remote_code=asked.trust_remote_code,
    )
    read = read_rows(settings)
    fields = read.schema.config_fields | dict(fields)
    shapes, _ = _skeleton(name, asked.trust_remote_code, fields)
    tokenizer = load_tokenizer(locate(name), trust_remote_code=asked.trust_remote_code)
    rows, _ = tokenise(
        read.schema.encode(read.train), tokenizer, max_length=asked.max_length, model_limit=_limit(shapes)
    )
    return cast("NDArray[Any]", lengths_of(rows)), fields


@contextmanager
def _frozen(model: nn.Module, plan: Plan | None) -> Iterator[None]:
    """Have a plan in force for a while."""
    force = Freeze(model, plan) if plan is not None else None
    try:
        yield
    finally:
        if force is not None:
            force.restore()


@contextmanager
def _all_trained(model: nn.Module) -> Iterator[None]:
    """Let everything train for a while that can."""
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])


def _speeds(
    model: nn.Module,
    config: Any,
    units: Sequence[UnitCost],
    rows: Rows,
    lengths: NDArray[Any],
    asked: EstimateSettings,
    settings: EngineSettings,
) -> tuple[Speeds, list[str]]:
    """How fast the machine is, and what of that was assumed."""
    figures = asked.figures
    if figures is not None:
        flops, bandwidth = figures
        speeds = from_figures(
            units,
            rate=UTILISATION * flops,
            bandwidth=bandwidth,
            length=rows.met,
            element_bytes=2 if asked.dtype != "fp32" else 4,
            how=f"{flops / 1e12:,.4g} TFLOP/s at its peak, {bytes_text(bandwidth)}/s of memory",
        )
        besides = f"a step takes {speeds.overhead * 1e3:.0f} ms besides"
        return speeds, [f"training reaches {UTILISATION:.0%} of the peak", besides, _WHOLE_LAST]
    core: Any = unwrap(model).core
    try:
        if not isinstance(core, PreTrainedModel):
            raise NotMeasurable("it is no model of transformers")  # noqa: TRY301 - one way on from all of them
        typical = typical_batch(lengths, rows.batch_size)
        speeds = measured_speeds(
            type(core),
            config,
            middle=int(np.median(lengths)),
            typical=typical,
            dtype=asked.dtype,
            settings=settings,
        )
    except NotMeasurable as reason:
        assumed = [f"no layer of it was run here, as {reason}", _WHOLE_LAST]
        return _by_products(units, rows, asked, torch.device("cpu")), assumed
    return speeds, []


def _by_products(units: Sequence[UnitCost], rows: Rows, asked: EstimateSettings, device: torch.device) -> Speeds:
    dtype = torch.float32 if asked.dtype == "fp32" else torch.bfloat16
    return product_speeds(units, tokens=rows.tokens // rows.steps, length=rows.met, dtype=dtype, device=device)


def _room(asked: EstimateSettings) -> tuple[int, int]:
    """Bytes of free memory and of free disk, for a store; of another machine's host nothing is known."""
    if asked.figures is not None:
        return _UNKNOWN, _UNKNOWN
    return free_memory(), shutil.disk_usage(existing_folder(default_folder())).free
