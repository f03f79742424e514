"""All that a training step can change, as it was: values, gradients, optimizer, buffers, modes, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from frostline.base.logging import get_logger
from frostline.base.random_state import RngState
from frostline.evidence.copy_on_write import Watch
from frostline.evidence.object_graph import ObjectGraph, bound_to_move
from frostline.evidence.optimizers import held, learning_rates
from frostline.evidence.tensor_copy import TensorCopy


class Snapshot:
    """A model and its optimizer as they were.

    What a step is bound to write into is copied: the parameters in the optimizer that train or still hold a
    gradient, their optimizer state, and the buffers. All else is only watched, see `frostline.evidence.copy_on_write`.
    What cannot be put back is said in a line of the log.

    Args:
        model: The model.
        optimizer: The optimizer; None for none.
        scaler: The gradient scaler; None for none.
        batch: The inputs, which a model might write into.

    Attributes:
        parameters: Per parameter name, the parameter as it was.
        buffers: Per buffer name, likewise.
        rates: Per parameter, by id, the learning rate in the optimizer, and in others that stepped, of hooks.
    """

    def __init__(self, model: nn.Module, optimizer: Any, scaler: Any = None, batch: Any = None) -> None:
        self._rng = RngState()
        self._contents = ObjectGraph()
        self._optimizer = optimizer
        self._known: dict[int, TensorCopy] = {}
        self.rates: dict[int, float] = {}
        in_optimizer = {id(parameter) for parameter in held(optimizer)}
        self.parameters = {
            name: self._keep(parameter, copy=id(parameter) in in_optimizer and bound_to_move(parameter))
            for name, parameter in model.named_parameters()
        }
        self.buffers = {name: self._keep(buffer, copy=True) for name, buffer in model.named_buffers()}
        self._keep_optimizer(optimizer)
        if scaler is not None:
            self._contents.keep(vars(scaler), copy=True)
        for path, module in model.named_modules():
            self._contents.keep(module, where=path or type(module).__name__)
        self._contents.keep(batch, where="The batch")
        for said in self._contents.unkept:
            get_logger().warning("%s: if the step advances it, it cannot be put back.", said)

    def _keep(self, tensor: torch.Tensor, *, copy: bool) -> TensorCopy:
        kept = self._known[id(tensor)] = self._contents.keep_tensor(tensor, copy=copy)
        return kept

    def _keep_optimizer(self, optimizer: Any) -> None:
        """Keep an optimizer, and copy what it is about to write into."""
        self.rates |= learning_rates(optimizer)
        for parameter in held(optimizer):
            moves = bound_to_move(parameter)
            if id(parameter) not in self._known:
                self._keep(parameter, copy=moves)
            elif moves:
                self._known[id(parameter)].save()
        self._contents.keep(optimizer, where=type(optimizer).__name__)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """In force while the step is taken: what is about to be written into is copied first.

        An optimizer that nobody named, stepped by a hook of the backward, is kept before its first step.
        """
        watch = Watch(self._contents.tensors)

        def before_step(optimizer: Any, *_: Any) -> None:
            if optimizer is not self._optimizer:
                count = len(self._contents.tensors)
                self._keep_optimizer(optimizer)
                watch.add(self._contents.tensors[count:])

        handle = register_optimizer_step_pre_hook(before_step)
        try:
            with watch:
                yield
        finally:
            handle.remove()

    def moved(self) -> frozenset[str]:
        """Names of the parameters that something wrote into while they were watched, and that differ from before."""
        return frozenset(
            name for name, kept in self.parameters.items() if (kept.written or kept.swapped) and kept.moved
        )

    @property
    def copied_bytes(self) -> int:
        """Memory that all copies take, in bytes."""
        return self._contents.copied_bytes

    def restore(self) -> None:
        """Put everything back, bit by bit; objects keep their identity."""
        self._contents.restore()
        self._rng.restore()
