"""Reading a step: the state of gradients before it, and what moved after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.base.dtypes import dtype_word
from frostline.evidence.optimizers import held, learning_rates
from frostline.evidence.probe.movement import GradientWord, Phase, Probe, ProbeParameter, relative, row_of
from frostline.evidence.tensor_copy import TensorCopy, same_bits, squares
from frostline.plan.describe import describe


def gradient_words(model: nn.Module) -> dict[str, GradientWord]:
    """Per parameter of a model, the state of its gradient; after the backward, before the step."""
    return {name: gradient_word(parameter) for name, parameter in model.named_parameters()}


def gradient_word(parameter: torch.Tensor) -> GradientWord:
    """The state of one parameter's gradient."""
    grad = parameter.grad
    if grad is None:
        return "none"
    if not parameter.requires_grad:
        return "stale"
    values = grad.coalesce().values() if grad.is_sparse else grad
    if not values.numel():
        return "zero"
    largest = float(values.detach().abs().amax().float())
    if not largest < float("inf"):  # NaN included
        return "not finite"
    return "yes" if largest else "zero"


def read_step(
    model: nn.Module,
    optimizer: Any,
    *,
    kept: Mapping[str, TensorCopy],
    buffers: Mapping[str, TensorCopy] | None,
    words: Mapping[str, GradientWord],
    rates: Mapping[int, float],
    earlier: Mapping[str, Phase],
    loss: float | None,
    said: str,
    skipped: bool = False,
    copied_bytes: int = 0,
) -> Probe:
    """Compare a model with what it was before a step.

    Args:
        model: The model, after the step.
        optimizer: The optimizer that took it; None for none.
        kept: Per parameter name, what it was before.
        buffers: Per buffer name, likewise; None where they were not looked at.
        words: What `gradient_words` gave before the step.
        rates: What `learning_rates` gave before the step.
        earlier: Per name of a parameter that moved before the optimizer's step, in which part that was.
        loss: The loss, if known.
        said: The optimizer in words.
        skipped: Whether the step was skipped.
        copied_bytes: Memory that the copies take.
    """
    anatomy = ModelMap.of(model)
    now = dict(model.named_buffers())
    rows, parameters = [], []
    for unit in anatomy.units:
        inside = [_parameter(name, unit.name, kept[name], words, rates, earlier) for name in unit.parameter_names]
        known = [name for name in unit.buffer_names if buffers is None or name in buffers]
        moved = None if buffers is None else tuple(name for name in known if _differs(buffers[name], now.get(name)))
        rows.append(row_of(unit.name, inside, len(known), moved))
        parameters += inside
    own = {id(parameter) for parameter in model.parameters()}
    return Probe(
        model_class=anatomy.model_class,
        rows=tuple(rows),
        parameters=tuple(parameters),
        changes=describe(anatomy, (parameter.name for parameter in parameters if parameter.moved)),
        loss=loss,
        optimizer=said,
        skipped=skipped,
        strangers=sum(id(parameter) not in own for parameter in held(optimizer)),
        copied_bytes=copied_bytes,
    )


def _differs(kept: TensorCopy, now: torch.Tensor | None) -> bool:
    """Whether a buffer moved; a module may put another tensor under its name."""
    if now is None or now is kept.tensor:
        return kept.moved
    return not same_bits(kept.before, now)


def _parameter(
    name: str,
    unit: str,
    kept: TensorCopy,
    words: Mapping[str, GradientWord],
    rates: Mapping[int, float],
    earlier: Mapping[str, Phase],
) -> ProbeParameter:
    tensor = kept.tensor
    moved = kept.moved
    comparable = moved and kept.before.shape == tensor.shape
    distance, size = squares(kept.before, tensor) if comparable else (0.0, 0.0)
    return ProbeParameter(
        name=name,
        unit=unit,
        trainable=tensor.requires_grad,
        gradient=words[name],
        in_optimizer=id(tensor) in rates,
        learning_rate=rates.get(id(tensor)),
        moved=moved,
        moved_in=earlier.get(name, "step") if moved else None,
        rounded_off=False,
        change=relative(distance**0.5, size**0.5),
        distance=distance**0.5,
        size=size**0.5,
        dtype=dtype_word(tensor.dtype),
        elements=tensor.numel(),
    )


def with_rounded_off(found: Probe, names: Collection[str]) -> Probe:
    """The same probe, in which the steps of some parameters are known to be lost to rounding."""
    if not names:
        return found
    parameters = (replace(one, rounded_off=one.name in names) for one in found.parameters)
    return replace(found, parameters=tuple(parameters))


def optimizer_in_words(optimizer: Any) -> str:
    """An optimizer's class and its learning rates: ``AdamW, learning rate 5e-05``."""
    if optimizer is None:
        return "none, since nothing trains"
    rates = ", ".join(f"{rate:g}" for rate in sorted(set(learning_rates(optimizer).values())))
    return f"{type(optimizer).__name__}, learning rate {rates}"
