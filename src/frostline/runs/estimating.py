"""What a plan will cost, reckoned before it is trained: from a configuration, lengths of rows, and a machine."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.wrappers import unwrap
from frostline.base.files import existing_folder
from frostline.checkpoints.classifier import load_tokenizer, position_limit
from frostline.checkpoints.skeleton import load_config, skeleton
from frostline.checkpoints.source import locate
from frostline.data.tokenising import tokenise
from frostline.engine.cost.costs import bytes_text
from frostline.engine.cost.estimate import Cost, Rows, cost_of
from frostline.engine.cost.machines import UTILISATION, Machine, Speeds, from_figures, machine_named
from frostline.engine.cost.units import UnitCost, frost_line_of, unit_costs
from frostline.engine.settings import EngineSettings
from frostline.errors import PlanError, SettingsError
from frostline.freezing.freeze import Freeze
from frostline.plan.describe import describe
from frostline.plan.plan import Plan
from frostline.runs.calibration import NotMeasurable, measured_speeds, product_speeds
from frostline.runs.defaults import usual_epochs
from frostline.runs.estimate_result import Estimate
from frostline.runs.row_lengths import batches_of, drawn_lengths, typical_batch
from frostline.runs.rows import read_rows
from frostline.runs.train_settings import MOST, TrainSettings, require_number
from frostline.store.folder import default_folder
from frostline.store.room import free_memory
from frostline.training.filling_pass import lengths_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from frostline.engine.settings import StoreWhere
    from frostline.plan.plan import FrozenMode

_HERE = "cpu"
_MOST_MEAN = 1_000_000


def estimate(
    model: nn.Module | str | PathLike[str],
    plan: Plan | None = None,
    *,
    freeze: str | None = None,
    train_only: str | None = None,
    frozen_mode: FrozenMode = "eval",
    data: str | None = None,
    rows: int | None = None,
    tokens: float | None = None,
    epochs: float | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    dtype: Literal["fp32", "bf16"] = "fp32",
    device: str = _HERE,
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
    _refuse(rows, tokens, data, flops, bandwidth, device)
    for name, value, most in (("rows", rows, MOST), ("batch_size", batch_size, MOST), ("max_length", max_length, MOST)):
        if value is not None:
            require_number(name, value, least=1, most=most)
    for name, number, most in (("mean_tokens", tokens, _MOST_MEAN), ("epochs", epochs, MOST)):
        if number is not None:
            require_number(name, number, most=most)
    if dtype not in {"fp32", "bf16"}:
        raise SettingsError(f"dtype={dtype!r} is none of 'fp32' and 'bf16'.")
    settings = EngineSettings(store=store)
    plan = plan or Plan.named(freeze, train_only, frozen_mode)
    overrides = {} if num_labels is None else {"num_labels": num_labels}
    name = None if isinstance(model, nn.Module) else fspath(model)
    lengths, assumptions = None, []
    if data is not None:
        if name is None:
            raise SettingsError("data needs a model by its name, whose tokenizer is read.\nGive rows and tokens.")
        lengths, overrides = _lengths_of_data(
            TrainSettings(
                model=name,
                data=data,
                max_length=max_length,
                text_columns=tuple(text_columns),
                label_columns=tuple(label_columns),
                trust_remote_code=trust_remote_code,
            ),
            overrides,
        )
    shapes = model if isinstance(model, nn.Module) else _skeleton(fspath(model), trust_remote_code, overrides)
    if lengths is None:
        limit = min((one for one in (max_length, _limit(shapes)) if one is not None), default=None)
        lengths = drawn_lengths(rows or 0, tokens or 0.0, limit)
        assumptions.append("lengths of rows vary about their mean as those of short reviews do")
    with _frozen(shapes, plan):
        units = unit_costs(shapes)
        if frost_line_of(units) is None:
            raise PlanError(f"The plan '{plan or 'as it is'}' leaves nothing to train.\nFreeze less.")
        anatomy = ModelMap.of(shapes)
        frozen = [name for name, parameter in shapes.named_parameters() if not parameter.requires_grad]
        trained = [name for name, parameter in shapes.named_parameters() if parameter.requires_grad]
        mode = plan.frozen_mode if plan is not None else frozen_mode
    with _all_trained(shapes):
        whole = unit_costs(shapes)
    met = batches_of(lengths, batch_size)
    speeds, said = _speeds(shapes, whole, met, lengths, dtype, device, flops, bandwidth, settings)
    assumptions += said
    count = usual_epochs(met.steps) if epochs is None else epochs
    free, disk = _room(device, flops)
    machine = machine_named(device) if device != _HERE else None

    def cost(of: tuple[UnitCost, ...]) -> Cost:
        return cost_of(
            of,
            met,
            count,
            speeds,
            settings,
            keeps=mode == "eval",
            is_half=dtype != "fp32",
            free_memory=free,
            free_disk=disk,
        )

    own, everything = cost(units), cost(whole)
    return Estimate(
        model_class=anatomy.model_class,
        trains=describe(anatomy, trained),
        freezes=describe(anatomy, frozen),
        rows=met,
        epochs=count,
        dtype=dtype,
        device=_device_name(device, flops),
        units=units,
        speeds=speeds,
        plan=own,
        everything=everything,
        remarks=tuple(remarks_on(units, own, everything, mode, machine, free)),
        assumptions=tuple(assumptions),
    )


def _refuse(
    rows: int | None,
    tokens: float | None,
    data: str | None,
    flops: float | None,
    bandwidth: float | None,
    device: str,
) -> None:
    """Refuse settings that contradict each other, or are half of a pair.

    Raises:
        SettingsError: If there are any.
    """
    if data is not None and (rows is not None or tokens is not None):
        raise SettingsError("--data and --rows, --mean-tokens both say how much there is.\nGive one of them.")
    if data is None and (rows is None or tokens is None):
        raise SettingsError("How much is trained on is not known.\nGive --data FILE, or --rows N and --mean-tokens T.")
    if (flops is None) != (bandwidth is None):
        raise SettingsError("--flops and --bandwidth go together.\nGive both: --flops 312e12 --bandwidth 2e12.")
    for name, value in (("flops", flops), ("bandwidth", bandwidth)):
        if value is not None:
            require_number(name, value)
    if flops is not None and device != _HERE:
        raise SettingsError(f"--device {device} and --flops both say how fast the machine is.\nGive one of them.")
    if flops is None and device != _HERE:
        machine_named(device)


def _skeleton(name: str, trust_remote_code: bool, overrides: Mapping[str, Any]) -> nn.Module:
    config = load_config(locate(name), trust_remote_code=trust_remote_code, **overrides)
    return skeleton(config, name, trust_remote_code=trust_remote_code).float()  # as train loads it


def _limit(model: nn.Module) -> int | None:
    core = unwrap(model).core
    return position_limit(core) if isinstance(core, PreTrainedModel) else None


def _lengths_of_data(settings: TrainSettings, overrides: Mapping[str, Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Tokens of each row, and what the labels say of the head."""
    read = read_rows(settings)
    source = locate(settings.model)
    fields = read.schema.config_fields | dict(overrides)
    shapes = _skeleton(settings.model, settings.trust_remote_code, fields)
    tokenizer = load_tokenizer(source, trust_remote_code=settings.trust_remote_code)
    rows, _ = tokenise(
        read.schema.encode(read.train),
        tokenizer,
        max_length=settings.max_length,
        model_limit=_limit(shapes),
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
    units: Sequence[UnitCost],
    rows: Rows,
    lengths: NDArray[Any],
    dtype: str,
    device: str,
    flops: float | None,
    bandwidth: float | None,
    settings: EngineSettings,
) -> tuple[Speeds, list[str]]:
    """How fast the machine is, and what of that was assumed."""
    machine = machine_named(device) if flops is None and device != _HERE else None
    if machine is not None:
        flops, bandwidth = machine.half if dtype != "fp32" else machine.fp32, machine.bandwidth
    if flops is not None and bandwidth is not None:
        how = f"{flops / 1e12:,.4g} TFLOP/s at its peak and {bytes_text(bandwidth)}/s of memory, as given"
        speeds = from_figures(
            units,
            rate=UTILISATION * flops,
            bandwidth=bandwidth,
            length=rows.met,
            element_bytes=2 if dtype != "fp32" else 4,
            how=how,
        )
        return speeds, [
            f"training reaches {UTILISATION:.0%} of the peak",
            f"a step takes {speeds.overhead * 1e3:.0f} ms besides",
            "the whole last layer is run",
        ]
    core: Any = unwrap(model).core
    try:
        if not isinstance(core, PreTrainedModel):
            raise NotMeasurable("it is no model of transformers")  # noqa: TRY301 - one way on from all of them
        typical = typical_batch(lengths, rows.batch_size)
        return (
            measured_speeds(type(core), core.config, lengths.tolist(), typical=typical, dtype=dtype, settings=settings),
            [],
        )
    except NotMeasurable as reason:
        precision = torch.float32 if dtype == "fp32" else torch.bfloat16
        speeds = product_speeds(units, tokens=rows.tokens // rows.steps, length=rows.met, dtype=precision)
        return speeds, [f"no layer of it was run here, as {reason}", "the whole last layer is run"]


def _room(device: str, flops: float | None) -> tuple[int, int]:
    """Bytes of free memory and of free disk; of a machine that is not this one, its own memory, and any disk."""
    if device != _HERE:  # the store lies in the memory of its host
        return 8 * machine_named(device).memory, 1 << 60
    if flops is not None:
        return 1 << 60, 1 << 60
    return free_memory(), shutil.disk_usage(existing_folder(default_folder())).free


def _device_name(device: str, flops: float | None) -> str:
    if flops is not None:
        return "one with the figures given"
    return "this one's processor" if device == _HERE else device


def remarks_on(
    units: Sequence[UnitCost], plan: Cost, everything: Cost, mode: FrozenMode, machine: Machine | None, free: int
) -> Iterator[str]:
    """What follows for a plan, in sentences.

    Args:
        units: Of the model, frozen as the plan says.
        plan: What the plan costs.
        everything: What training everything costs.
        mode: How frozen modules behave.
        machine: The machine that it is for, where it is one by name.
        free: Bytes of free memory on this one.
    """
    line = frost_line_of(units) or 0
    crossed = [unit.name for unit in units[line:] if unit.parameters and not unit.trains]
    if all(unit.trained_share == 1 and unit.trains for unit in units if unit.parameters):
        yield "Nothing is frozen, so nothing is saved."
    else:
        yield saving_text(plan, everything)
    if crossed:
        names = crossed[0] if len(crossed) == 1 else f"{crossed[0]} to {crossed[-1]}"
        yield (
            f"Freezing {names} above {units[line].name}, which trains, makes nothing that the store could keep: the "
            "backward pass still crosses what is frozen there. It spares gradients of weights and optimizer state only."
        )
    if plan.choice is None and any(unit.parameters and not unit.trains for unit in units[:line]):
        yield f"Frozen modules are in {mode} mode, so what they give differs each time and cannot be stored."
    elif plan.choice is None:
        yield "Nothing is frozen beneath all that trains, so there is nothing to store."
    elif plan.choice.break_even is not None:
        yield (
            f"Activations are kept {_PLACES[plan.where]}: {plan.choice.why}. Storing breaks even after "
            f"{plan.choice.break_even:.1f} epochs."
        )
    else:
        yield f"Activations are kept {_PLACES[plan.where]}: {plan.choice.why}. Storing never breaks even."
    memory = machine.memory if machine is not None else free
    host = plan.memory.store if machine is not None else 0  # the store lies in the memory of the machine's host
    if plan.memory.peak - host > memory:
        whose = f"{machine.name} has" if machine is not None else "are free here"
        size = bytes_text(memory)
        told = f"{whose} {size}" if machine is not None else f"{size} {whose}"
        yield f"It does not fit: {bytes_text(plan.memory.peak - host)} are needed at the peak, and {told}."


_PLACES = {"nowhere": "nowhere", "memory": "in memory", "disk": "on disk"}


def saving_text(plan: Cost, everything: Cost) -> str:
    """How much a plan saves beside training everything."""
    times = everything.times.total / plan.times.total
    share = plan.memory.peak / everything.memory.peak
    faster = f"{times:.1f} times as fast as" if times >= 1.05 else f"no faster than ({times:.2f} times)"
    return f"This is {faster} training everything, with {share:.0%} of its memory."
