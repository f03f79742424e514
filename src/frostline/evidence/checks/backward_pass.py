"""A real forward and backward, after which everything is as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from frostline.compat.tensors import clear_late_hooks
from frostline.errors import ModelError
from frostline.evidence.probe.inputs import called, refuse_model, runs_alone, usable_batch
from frostline.evidence.probe.observe import gradient_word
from frostline.evidence.probe.step import backward, begin, own_loss
from frostline.evidence.snapshot import Snapshot

_CUT_BY_CHECKPOINT = "None of the inputs have requires_grad=True"


@dataclass(frozen=True, slots=True)
class Trial:
    """What a forward and a backward pass gave.

    Attributes:
        loss: The loss; for a model without one, the sum of its first output.
        finite: Per parameter that got a gradient, whether all of it is finite.
        zero: Names of those whose gradient is 0 throughout.
        gradients: Per parameter in half precision that got one, the gradient itself.
        ran: Names of the parameters whose modules were called.
        cut: Whether torch warned that a checkpoint has no input that requires a gradient.
    """

    loss: float
    finite: dict[str, bool]
    zero: frozenset[str]
    gradients: dict[str, torch.Tensor]
    ran: frozenset[str]
    cut: bool


def try_batch(model: nn.Module, batch: Any) -> Trial:
    """Run a forward and a backward in train mode, and put everything back, as the probe does.

    Hooks that run once a gradient is there, in which some optimizers step, do not run.

    Args:
        model: The model; wrappers for parallelism and ``torch.compile`` are looked through.
        batch: Keyword arguments of its forward, labels included; or a sequence of positional ones; or the one.

    Returns:
        What it gave; without any gradient where the loss depends on nothing that trains.

    Raises:
        ModelError: If no step can be taken with the model, or no gradient of what its forward gives.
        DataError: If the batch is empty, or is not what the forward takes.
        Exception: Whatever the model raises on the batch.
    """
    refuse_model(model)
    batch = usable_batch(model, batch)
    snapshot = Snapshot(model, None, batch=batch)
    try:
        begin(model)
        without_late_hooks(model)
        ran: set[str] = set()
        heard = warnings.catch_warnings(record=True)
        with snapshot.watching(), torch.enable_grad(), heard as warned, _noting(model, ran):
            warnings.simplefilter("always")
            loss = _loss_of(called(runs_alone(model), batch))
            backward(loss, None)
        got = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.requires_grad
        }
        return Trial(
            loss=float(loss.detach()),
            finite={name: bool(gradient.isfinite().all()) for name, gradient in got.items()},
            zero=frozenset(name for name in got if gradient_word(model.get_parameter(name)) == "zero"),
            gradients={name: gradient for name, gradient in got.items() if gradient.element_size() <= 2},
            ran=frozenset(ran),
            cut=any(_CUT_BY_CHECKPOINT in str(warning.message) for warning in warned),
        )
    finally:
        snapshot.restore()


def without_late_hooks(model: nn.Module) -> None:
    """Drop the hooks that run once a gradient is there, in which some optimizers step; a snapshot puts them back."""
    for parameter in model.parameters():
        clear_late_hooks(parameter)


def _loss_of(output: Any) -> torch.Tensor:
    """The loss of an output, or a sum that depends on all of its first tensor."""
    value = own_loss(output)
    if value is None and isinstance(output, Mapping):
        value = next(iter(output.values()), None)
    while isinstance(value, tuple | list) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor):
        raise ModelError(
            f"The forward gave a {type(output).__name__}, of which no gradient can be taken.\n"
            "Give a batch for which it gives a loss or a tensor."
        )
    return value.float().sum()


@contextmanager
def _noting(model: nn.Module, ran: set[str]) -> Iterator[None]:
    """Note the parameters, by their first names, whose modules are called."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def note(module: nn.Module, _: Any) -> None:
        ran.update(names[id(parameter)] for parameter in module.parameters(recurse=False))

    handles = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
