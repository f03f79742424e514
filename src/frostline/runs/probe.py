"""A probe of a checkpoint on the first rows of a table, prepared as a training run prepares them."""

from __future__ import annotations

import torch

from frostline.checkpoints.quiet import quiet
from frostline.errors import SettingsError
from frostline.evidence.probe.movement import Probe
from frostline.evidence.probe.probe import LEARNING_RATE, probe
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.runs.devices import device_options
from frostline.runs.first_batch import Rows, load_with_batch


def probe_checkpoint(
    name: str,
    rows: Rows,
    plan: Plan | None = None,
    *,
    learning_rate: float = LEARNING_RATE,
    seed: int = 42,
    dtype: str = "fp32",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Probe:
    """Load a classifier, freeze it as planned, and probe it on the first rows of a table.

    Args:
        name: A folder or a hub name.
        rows: The rows of the step; all rows of their table are read for their labels.
        plan: What is frozen; None to take the model as it stands.
        learning_rate: Rate of the AdamW that takes the step.
        seed: Seed of new weights and dropout.
        dtype: ``"fp32"``, or ``"bf16"`` for mixed precision.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        FrostlineError: If settings, data or model cannot be used.
    """
    place = _device(device, dtype)
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
