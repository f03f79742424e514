"""A real forward and backward, after which everything is as it was."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.evidence.rng import RngState
from frostline.freezing.mode import is_pinned

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

NO_GRADIENT_AT_ALL = "does not require grad and does not have a grad_fn"
_CUT_BY_CHECKPOINT = "None of the inputs have requires_grad=True"


@dataclass(frozen=True, slots=True)
class Trial:
    """What a forward and a backward pass gave.

    Attributes:
        loss: The loss; for a model without one, the sum of its first output.
        finite: Per parameter that got a gradient, whether all of it is finite.
        gradients: Per parameter in half precision that got one, the gradient itself.
        ran: Names of the parameters whose modules were called.
        cut: Whether torch warned that a checkpoint has no input that requires a gradient.
    """

    loss: float
    finite: dict[str, bool]
    gradients: dict[str, torch.Tensor]
    ran: frozenset[str]
    cut: bool


def try_batch(model: nn.Module, batch: Any) -> Trial:
    """Run a forward and a backward in train mode, and put everything back.

    Gradients, buffers, modes, attributes of modules, and the random states of Python, NumPy and torch are as
    before, also where the pass raises. Hooks that run after a gradient is there do not run.

    Args:
        model: The model; wrappers for parallelism and ``torch.compile`` are looked through.
        batch: Keyword arguments of its forward, labels included; or a sequence of positional ones; or the one.

    Returns:
        What it gave; without any gradient where the loss depends on nothing that trains.

    Raises:
        Exception: Whatever the model raises on the batch.
    """
    inner = _without_wrappers(model)
    prefix = next(path for path, module in model.named_modules() if module is inner)
    prefix = f"{prefix}." if prefix else ""
    with _as_before(inner), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        inner.train()
        ran: set[str] = set()
        with _noting(inner, ran):
            loss = _loss_of(_called(inner, batch))
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if NO_GRADIENT_AT_ALL not in str(error):
                raise
        got = {
            f"{prefix}{name}": parameter.grad
            for name, parameter in inner.named_parameters()
            if parameter.grad is not None and parameter.requires_grad
        }
        return Trial(
            loss=float(loss),
            finite={name: bool(gradient.isfinite().all()) for name, gradient in got.items()},
            gradients={name: gradient for name, gradient in got.items() if gradient.element_size() <= 2},
            ran=frozenset(f"{prefix}{name}" for name in ran),
            cut=any(_CUT_BY_CHECKPOINT in str(warning.message) for warning in heard),
        )


def _without_wrappers(model: nn.Module) -> nn.Module:
    """The module inside parallelism and ``torch.compile``: no other process is waited for, and nothing compiled."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        children = dict(model.named_children())
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = children["module"]
        elif "_orig_mod" in children:
            model = children["_orig_mod"]
        else:
            return model


def _called(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


def _loss_of(output: Any) -> torch.Tensor:
    """The loss of an output, or a sum that depends on all of its first tensor."""
    import torch

    loss = getattr(output, "loss", None)
    if isinstance(output, Mapping) and loss is None:
        loss = output.get("loss")
    if isinstance(loss, torch.Tensor):
        return loss.sum()
    values = list(output.values()) if isinstance(output, Mapping) else output
    while isinstance(values, tuple | list):
        values = values[0]
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"The model gives a {type(values).__name__}, of which no gradient can be taken.")
    return values.float().sum()


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


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Take gradients and their hooks away, and put back at the end what a training pass can change."""
    import torch

    attributes = [(module, _shallow(module)) for module in model.modules()]
    asked = [(vars(module)["train"], vars(module)["train"].asked) for module in model.modules() if is_pinned(module)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    # Tables with a largest norm are scaled in place by a forward.
    tables = [module.weight for module in model.modules() if getattr(module, "max_norm", None) is not None]
    buffers += [(table, table.detach().clone()) for table in tables if isinstance(table, torch.Tensor)]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    hooks = [(held, dict(held)) for parameter, _ in gradients if (held := getattr(parameter, _HOOKS))]
    random = RngState()
    for parameter, _ in gradients:
        parameter.grad = None
    for held, _ in hooks:
        held.clear()
    try:
        with torch.enable_grad():
            yield
    finally:
        random.restore()
        for module, (own, *inside) in attributes:
            for name, entries in zip(_REGISTERED, inside, strict=True):
                own[name].clear()
                own[name].update(entries)
            vars(module).clear()
            vars(module).update(own)
        for pinned, mode in asked:
            pinned.asked = mode
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for held, entries in hooks:
            held.update(entries)


_REGISTERED = ("_modules", "_buffers", "_parameters")
# Hooks that run once a gradient is there, where some optimizers step; torch has no public way to set them aside.
_HOOKS = "_post_accumulate_grad_hooks"


def _shallow(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """The attributes of a module, and what is registered in it, without copying any tensor."""
    own = vars(module)
    return dict(own), *(dict(own[name]) for name in _REGISTERED)
