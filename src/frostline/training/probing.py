"""A probe of a checkpoint on the first rows of a table, prepared as a training run prepares them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from frostline.checkpoints.quiet import quiet
from frostline.errors import SettingsError
from frostline.evidence.probe import LEARNING_RATE, probe
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.training.devices import device_options
from frostline.training.firstbatch import Rows, load_with_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.evidence.movement import Probe
    from frostline.plan.plan import FrozenMode


def probe_checkpoint(
    name: str,
    data: str,
    *,
    freeze: str | None = None,
    train_only: str | None = None,
    frozen_mode: FrozenMode = "eval",
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 16,
    max_length: int | None = None,
    seed: int = 42,
    text_columns: Sequence[str] = ("text",),
    label_columns: Sequence[str] = ("label",),
    problem_type: str | None = None,
    dtype: str = "fp32",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Probe:
    """Load a classifier, freeze it as planned, and probe it on the first rows of a table.

    Args:
        name: A folder or a hub name.
        data: Where the training rows are; all of them are read for their labels.
        freeze: What is frozen, as a selector.
        train_only: What trains, as a selector; not together with `freeze`.
        frozen_mode: ``"eval"`` or ``"train"``.
        learning_rate: Rate of the AdamW that takes the step.
        batch_size: Rows of the step.
        max_length: Tokens per row at most; None for what the model can take.
        seed: Seed of new weights and dropout.
        text_columns: One column, or two for pairs of texts.
        label_columns: One column, or several.
        problem_type: One of transformers' problem types; None to tell it from the labels.
        dtype: ``"fp32"``, or ``"bf16"`` for mixed precision.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        FrostlineError: If settings, data or model cannot be used.
    """
    plan = Plan(freeze, train_only, frozen_mode) if freeze is not None or train_only is not None else None
    place = _device(device, dtype)
    rows = Rows(
        data=data,
        count=batch_size,
        text_columns=tuple(text_columns),
        label_columns=tuple(label_columns),
        problem_type=problem_type,
        max_length=max_length,
    )
    model, batch = load_with_batch(name, rows, seed=seed, trust_remote_code=trust_remote_code)
    if plan is not None:
        Freeze(model, plan)
    model.to(place)  # type: ignore[arg-type]
    with quiet():
        return probe(model, batch, lr=learning_rate, autocast=torch.bfloat16 if dtype == "bf16" else None)


def _device(device: str, dtype: str) -> torch.device:
    """The device that a name means.

    Raises:
        SettingsError: If this machine does not have it, or a step cannot be taken in the dtype.
    """
    if dtype == "fp16":
        raise SettingsError("dtype is 'fp16', whose gradient scaler skips the first steps.\nPass --dtype bf16 or fp32.")
    if device_options(device, dtype)["use_cpu"]:
        return torch.device("cpu")
    return torch.device("cuda" if torch.cuda.is_available() and device != "mps" else "mps")
