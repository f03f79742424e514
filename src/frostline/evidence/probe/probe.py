"""The probe: one real forward, backward and optimizer step, everything restored afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from frostline.evidence.optimizers import inner_optimizer, refuse_no_optimizer, scaler_of
from frostline.evidence.probe.inputs import refuse_model, runs_alone, usable_batch
from frostline.evidence.probe.movement import Phase, Probe
from frostline.evidence.probe.observe import gradient_words, optimizer_in_words, read_step, with_rounded_off
from frostline.evidence.probe.rounding import group_of, lost_to_rounding
from frostline.evidence.probe.step import backward, begin, clear_gradients, computed_in, loss_of, optimize
from frostline.evidence.snapshot import Snapshot

LEARNING_RATE = 5e-5  # of transformers' TrainingArguments


def probe(
    model: nn.Module,
    batch: Any,
    optimizer: Any = None,
    *,
    loss: Callable[..., torch.Tensor] | None = None,
    autocast: torch.dtype | None = None,
    scaler: Any = None,
    lr: float = LEARNING_RATE,
) -> Probe:
    """See what one real training step changes, and leave everything bit-identical.

    The step is taken as a training loop takes it: ``model.train()`` (frozen modules that are kept in eval mode stay
    so), forward, backward, ``optimizer.step()``. Then parameters, gradients, buffers, modes, the optimizer's state and
    the random number generators are put back, also when the step raises. What is frozen is not copied, only watched:
    it is copied at the moment when something is about to write into it.

    Args:
        model: The model, on any device; also wrapped by PEFT, ``DistributedDataParallel`` (which is looked through,
            so nothing is communicated) or ``torch.compile`` (likewise, so it runs uncompiled).
        batch: What ``model(**batch)`` takes, labels included; or a tensor or tuple for a model of plain torch. It is
            moved to the model's device.
        optimizer: The optimizer, also one that accelerate prepared. By default a new AdamW over what trains, without
            weight decay, which is discarded afterwards.
        loss: Computes the loss where the model does not: ``loss(output, target)`` for a tuple, whose last item is the
            target; ``loss(output, batch)`` for a mapping; ``loss(output)`` for a single tensor.
        autocast: The dtype of mixed precision, such as ``torch.bfloat16``.
        scaler: A gradient scaler; by default the one that accelerate gave to the optimizer.
        lr: Learning rate of the AdamW that is built without an optimizer.

    Returns:
        What moved, by bit patterns and not by flags: a row per unit and per parameter.

    Raises:
        ModelError: If the forward gives no loss, or no step can be taken with the model: it has no values (meta
            device), or only parts of them (FSDP, DeepSpeed).
        DataError: If the batch is empty, or is not what the forward takes.
        SettingsError: If the optimizer is none.
        Exception: Whatever the step itself raises; everything is put back before.
    """
    refuse_model(model)
    refuse_no_optimizer(optimizer)
    batch = usable_batch(model, batch)
    real, said = _optimizer(model, optimizer, lr)
    scaler = scaler_of(optimizer) if scaler is None else scaler
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    snapshot = Snapshot(model, real, scaler, batch)
    try:
        begin(model)
        if callable(getattr(real, "train", None)):  # optimizers without a schedule have modes as well
            real.train()

        def forward() -> torch.Tensor:
            with computed_in(autocast, device):
                return loss_of(runs_alone(model), batch, loss)

        def again() -> torch.Tensor:
            clear_gradients(model)
            value = forward()
            backward(value, None)
            return value

        with snapshot.watching(), torch.enable_grad():
            value = forward()
            earlier: dict[str, Phase] = dict.fromkeys(snapshot.moved(), "forward")
            backward(value, scaler)
            if scaler is not None and real is not None and value.requires_grad:
                scaler.unscale_(real)
            words = gradient_words(model)
            late: dict[str, Phase] = dict.fromkeys(snapshot.moved(), "backward")
            stepped = optimize(real, scaler if value.requires_grad else None, again, value)
        found = read_step(
            model,
            real,
            kept=snapshot.parameters,
            buffers=snapshot.buffers,
            words=words,
            rates=snapshot.rates,
            earlier=late | earlier,
            loss=float(value.detach()),
            said=said,
            skipped=not stepped,
            copied_bytes=snapshot.copied_bytes,
        )
        unmoved = [] if found.skipped else [one.name for one in found.parameters if one.stayed_with_gradient]
        gradients = {name: model.get_parameter(name).grad for name in unmoved}
    finally:
        snapshot.restore()
    return with_rounded_off(found, _rounded_off(model, real, gradients))


def _rounded_off(model: nn.Module, optimizer: Any, gradients: Mapping[str, torch.Tensor | None]) -> frozenset[str]:
    """Names of the parameters whose step is lost to rounding, measured; all is as it was before the step."""
    parameters = {name: model.get_parameter(name) for name in gradients}
    steps = ((name, group_of(optimizer, one), optimizer.state.get(one, {}), one) for name, one in parameters.items())
    return frozenset(
        name
        for name, options, state, parameter in steps
        if lost_to_rounding(optimizer, options, state, parameter.detach(), gradients[name])
    )


def _optimizer(model: nn.Module, given: Any, lr: float) -> tuple[Any, str]:
    """The optimizer that takes the step, outside its wrappers, and what it is in words."""
    if given is not None:
        real = inner_optimizer(given)
        return real, optimizer_in_words(real)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    made = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.0) if trainable else None
    return made, optimizer_in_words(made) + (" (built for the probe)" if made is not None else "")
