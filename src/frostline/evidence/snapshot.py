"""All that a training step can change, as it was: values, gradients, optimizer, buffers, modes, random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from frostline.evidence.kept import Contents, Kept
from frostline.evidence.optimizers import held
from frostline.evidence.rng import RngState
from frostline.freezing.mode import StayInEval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

# The dictionaries of a module that hold its parts, rather than plain attributes.
_PARTS = ("_parameters", "_buffers", "_modules")


class Snapshot:
    """A model and its optimizer as they were.

    What a step is bound to write into is copied: the parameters in the optimizer that train or still hold a
    gradient, their optimizer state, and the buffers. All else is only watched, see `frostline.evidence.watch`.

    Args:
        model: The model.
        optimizer: The optimizer, outside its wrappers; None for none.
        scaler: The gradient scaler; None for none.
        batch: The inputs, which a model might write into.

    Attributes:
        parameters: Per parameter name, the parameter as it was.
        buffers: Per buffer name, likewise.
    """

    def __init__(self, model: nn.Module, optimizer: Any, scaler: Any = None, batch: Any = None) -> None:
        self._rng = RngState()
        in_optimizer = {id(parameter) for parameter in held(optimizer)}
        moving = {
            id(parameter)
            for parameter in (*model.parameters(), *held(optimizer))
            if id(parameter) in in_optimizer and (parameter.requires_grad or parameter.grad is not None)
        }
        named = dict(model.named_parameters())
        self.parameters = {name: Kept(parameter, copy=id(parameter) in moving) for name, parameter in named.items()}
        self.buffers = {name: Kept(buffer, copy=True) for name, buffer in model.named_buffers()}
        own = {id(parameter) for parameter in named.values()}
        self._strangers = [
            Kept(parameter, copy=id(parameter) in moving) for parameter in held(optimizer) if id(parameter) not in own
        ]
        everything = (*named.values(), *(kept.tensor for kept in self._strangers))
        self._flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in everything]
        gradients = [grad for *_, grad in self._flags if grad is not None]
        self._gradients = [Kept(grad, copy=False) for grad in gradients if grad.layout is torch.strided]
        self._contents = Contents()
        self._pins: list[tuple[StayInEval, bool]] = []
        self._keep_modules(model)
        self._keep_optimizer(optimizer, moving)
        if scaler is not None:
            self._contents.keep(vars(scaler), copy=True)
        self._contents.keep(batch, copy=False)

    def _keep_modules(self, model: nn.Module) -> None:
        """Keep the attributes of all modules: modes, counters, and tensors that are no buffers."""
        for module in model.modules():
            attributes = vars(module)
            self._contents.keep_dict(attributes)
            for name in _PARTS:
                if isinstance(part := attributes.get(name), dict):
                    self._contents.keep_dict(part)
            for value in attributes.values():
                if isinstance(value, torch.Tensor):
                    self._contents.keep(value, copy=False)
                elif isinstance(value, StayInEval):
                    self._pins.append((value, value.asked))

    def _keep_optimizer(self, optimizer: Any, moving: set[int]) -> None:
        if optimizer is None:
            return
        self._contents.keep_dict(vars(optimizer))
        self._contents.keep_list(optimizer.param_groups)
        for group in optimizer.param_groups:
            self._contents.keep_dict(group)
            for name, value in group.items():
                if name == "params":
                    self._contents.keep_list(value)
                else:
                    self._contents.keep(value, copy=True)
        self._contents.keep_dict(optimizer.state)
        for key, state in optimizer.state.items():
            self._contents.keep(state, copy=id(key) in moving or not isinstance(key, torch.Tensor))

    @property
    def kept(self) -> Iterator[Kept]:
        """All tensors, copied or to be watched."""
        yield from self.parameters.values()
        yield from self.buffers.values()
        yield from self._strangers
        yield from self._gradients
        yield from self._contents.tensors

    @property
    def copied_bytes(self) -> int:
        """Memory that all copies take, in bytes."""
        return sum(one.copied_bytes for one in self.kept)

    def restore(self) -> None:
        """Put everything back, bit by bit; objects keep their identity."""
        with torch.no_grad():
            self._contents.restore()
            for one in (*self.parameters.values(), *self.buffers.values(), *self._strangers, *self._gradients):
                one.restore()
            for parameter, flag, grad in self._flags:
                parameter.requires_grad_(flag)
                parameter.grad = grad
        for pin, asked in self._pins:
            pin.asked = asked
        self._rng.restore()
