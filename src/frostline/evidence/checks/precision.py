"""Weights in which a step cannot be stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from frostline.base.dtypes import can_have_gradient, dtype_word
from frostline.evidence.checks.case import Case
from frostline.evidence.checks.findings import Finding, some

_LOST = 0.5  # share of a tensor's elements that a step leaves as they are
_SAMPLE = 65_536  # elements looked at per tensor
# Optimizers whose step is about the learning rate per element, whatever the size of the gradient.
_NORMALISED = ("adam", "lion", "rmsprop", "adagrad", "lamb", "sophia")


def update_lost_to_rounding(case: Case) -> Iterator[Finding]:
    """A step is smaller than half the distance to the next number that the weight's dtype has."""
    normalised = any(word in type(case.optimizer).__name__.lower() for word in _NORMALISED)
    lost = []
    for group in case.groups:
        rate = float(group.get("lr", 0.0))
        for name in case.in_group(group, case.trainable):
            parameter = case.parameters[name]
            if _is_half(parameter) and rate:
                step = _step(case, name, rate, normalised=normalised)
                if step is not None and _share_lost(parameter, step) > _LOST:
                    lost.append(name)
    if lost:
        dtypes = {dtype_word(case.parameters[name].dtype) for name in lost}
        yield case.find(
            "warning",
            lost,
            cause=f"A step of the optimizer is below the resolution of {', '.join(sorted(dtypes))} for most elements "
            f"of {len(lost)} parameters, which then stay as they are: {some(lost)}.",
            mend="Keep what trains in float32 (model.float()) and use autocast, bf16=True, for the speed.",
        )


def _is_half(parameter: torch.Tensor) -> bool:
    return parameter.dtype in {torch.bfloat16, torch.float16} and parameter.device.type != "meta"


def _step(case: Case, name: str, rate: float, *, normalised: bool) -> Any:
    """The size of a step: a number, or a tensor of the parameter's shape; None where it cannot be told."""
    if normalised:
        return rate
    gradient = case.trial.gradients.get(name) if case.trial is not None else case.parameters[name].grad
    return None if gradient is None else rate * gradient.float()


def _share_lost(parameter: torch.Tensor, step: Any) -> float:
    values = parameter.detach().reshape(-1)[:_SAMPLE]
    sizes = step.reshape(-1)[:_SAMPLE] if isinstance(step, torch.Tensor) else step
    stepped = (values.float() - sizes).to(values.dtype)
    asked = torch.ones_like(values, dtype=torch.bool) if not isinstance(sizes, torch.Tensor) else sizes != 0
    return float((stepped == values)[asked].float().mean()) if bool(asked.any()) else 0.0


def fp16_unscale(case: Case) -> Iterator[Finding]:
    """Weights in fp16 train: a GradScaler refuses their gradients, and without one they underflow."""
    names = [name for name in case.trainable if case.parameters[name].dtype == torch.float16]
    if names:
        yield case.find(
            "warning",
            names,
            cause=f"{len(names)} trainable parameters are in float16, whose gradients a GradScaler refuses "
            f"('Attempting to unscale FP16 gradients.') and which underflow without one: {some(names)}.",
            mend="Load what trains in float32 and let autocast compute in fp16; what is frozen may stay in float16.",
        )


def integer_weights(case: Case) -> Iterator[Finding]:
    """Weights are whole numbers, which no gradient moves."""
    names = [name for name, parameter in case.parameters.items() if not can_have_gradient(parameter)]
    if names:
        yield case.find(
            "note",
            names,
            cause=f"{len(names)} parameters are whole numbers (quantised weights), which cannot train: {some(names)}.",
            mend="Train adapters above them (PEFT), or load the weights unquantised.",
        )


CHECKS = (update_lost_to_rounding, fp16_unscale, integer_weights)
