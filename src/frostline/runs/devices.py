"""Where a Trainer runs, and in which precision."""

from __future__ import annotations

from typing import Any

import torch

from frostline.errors import SettingsError


def device_of(device: str) -> torch.device:
    """The device on which a run computes; ``"auto"`` takes an accelerator where there is one."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return torch.device(next((name for name, found in there.items() if found), "cpu") if device == "auto" else device)


def device_options(device: str, dtype: str) -> dict[str, Any]:
    """The fields of TrainingArguments for a device and a dtype.

    Raises:
        SettingsError: If this machine does not have the device, or the device not the dtype.
    """
    accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device in accelerators and not accelerators[device]:
        raise SettingsError(f"device is {device!r}, but torch finds no such device here.\nPass --device cpu, or auto.")
    on_cpu = device == "cpu" or not any(accelerators.values())
    if dtype == "fp16" and (on_cpu or not accelerators["cuda"]):
        raise SettingsError("dtype is 'fp16', which needs a CUDA device.\nPass --dtype bf16 or fp32.")
    return {
        "use_cpu": on_cpu,
        "bf16": dtype == "bf16",
        "fp16": dtype == "fp16",
        "dataloader_pin_memory": not on_cpu,
    }
