"""The probe: one real forward, backward and optimizer step, everything restored afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from frostline.errors import ModelError
from frostline.evidence.observe import gradient_words, optimizer_in_words, read_step
from frostline.evidence.optimizers import inner_optimizer, learning_rates, scaler_of
from frostline.evidence.snapshot import Snapshot
from frostline.evidence.step import backward, computed_in, loss_of, on_device, optimize
from frostline.evidence.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from frostline.evidence.movement import Probe

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
        ModelError: If the forward gives no loss, or the model has no values (meta device).
        Exception: Whatever the step itself raises; everything is put back before.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(f"{type(model).__name__} is on the meta device, so no step can be taken.\nLoad its weights.")
    real, said = _optimizer(model, optimizer, lr)
    scaler = scaler_of(optimizer) if scaler is None else scaler
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    batch = on_device(batch, device)
    rates = learning_rates(real)
    snapshot = Snapshot(model, real, scaler, batch)
    try:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = None
        model.train()
        if callable(getattr(real, "train", None)):  # optimizers without a schedule have modes as well
            real.train()
        with Watch(snapshot.kept), torch.enable_grad():
            with computed_in(autocast, device):
                value = loss_of(_runs_alone(model), batch, loss)
            backward(value, scaler)
            if scaler is not None and real is not None and value.requires_grad:
                scaler.unscale_(real)
            words = gradient_words(model)
            stepped = optimize(real, scaler if value.requires_grad else None)
        return read_step(
            model,
            real,
            kept=snapshot.parameters,
            buffers=snapshot.buffers,
            words=words,
            rates=rates,
            loss=float(value.detach()),
            said=said,
            skipped=not stepped,
            copied_bytes=snapshot.copied_bytes,
        )
    finally:
        snapshot.restore()


def _optimizer(model: nn.Module, given: Any, lr: float) -> tuple[Any, str]:
    """The optimizer that takes the step, outside its wrappers, and what it is in words."""
    if given is not None:
        real = inner_optimizer(given)
        return real, optimizer_in_words(real)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    made = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.0) if trainable else None
    return made, optimizer_in_words(made) + (" (built for the probe)" if made is not None else "")


def _runs_alone(model: nn.Module) -> nn.Module:
    """The module inside wrappers that would communicate or compile."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in dict(model.named_children()):
            model = model.get_submodule("_orig_mod")
        else:
            return model
