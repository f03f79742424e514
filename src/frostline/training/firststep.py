"""The first real step of a training run, watched: what moved in it, and whether that is what the flags say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from frostline.evidence.kept import Kept
from frostline.evidence.movement import GradientWord, Probe, surprises_in_words
from frostline.evidence.observe import gradient_words, optimizer_in_words, read_step
from frostline.evidence.optimizers import inner_optimizer, learning_rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

# Copies are taken up to this size (BERT-base is 440 MB); of more, only the gradients are looked at.
_MOST_BYTES = 512 * 2**20


class FirstStep:
    """Watches a training run's first step whose learning rate is above 0; nothing of the step is changed.

    Attributes:
        probe: What the step changed; None before it, and where it is too large to be copied.
        surprises: What contradicts the flags, in words, a clause per cause.
        done: Whether there is nothing more to watch.
    """

    def __init__(self) -> None:
        self.probe: Probe | None = None
        self.surprises: Sequence[str] = ()
        self.done = False
        self._kept: dict[str, Kept] = {}
        self._words: dict[str, GradientWord] = {}
        self._rates: dict[int, float] = {}
        self._copied = False

    def before(self, model: nn.Module, optimizer: Any) -> None:
        """Look at the gradients, and copy what the step is bound to write into.

        Args:
            model: The model, after the backward.
            optimizer: The optimizer, before its step.
        """
        if self.done:
            return
        rates = learning_rates(inner_optimizer(optimizer))
        if not any(rates.values()):
            return  # a warmup that begins at 0
        self._rates, self._words = rates, gradient_words(model)
        moving = {
            name
            for name, parameter in model.named_parameters()
            if id(parameter) in rates and (parameter.requires_grad or parameter.grad is not None)
        }
        tensors = [model.get_parameter(name) for name in moving]
        self._copied = _fits(tensors)
        self._kept = {
            name: Kept(parameter, copy=self._copied and name in moving) for name, parameter in model.named_parameters()
        }

    def after(self, model: nn.Module, optimizer: Any) -> None:
        """Compare with what was copied; where a gradient scaler skipped the step, wait for the next one.

        Args:
            model: The model, after the step.
            optimizer: The optimizer that took it.
        """
        if self.done or not self._kept:
            return
        kept, self._kept = self._kept, {}
        if getattr(optimizer, "step_was_skipped", False):
            return
        self.done = True
        real = inner_optimizer(optimizer)
        found = read_step(
            model,
            real,
            kept=kept,
            buffers={},
            words=self._words,
            rates=self._rates,
            loss=None,
            said=optimizer_in_words(real),
            copied_bytes=sum(one.copied_bytes for one in kept.values()),
        )
        # A group that rests on purpose, or warms up more slowly, is no contradiction.
        resting = {parameter.name for parameter in found.parameters if parameter.learning_rate == 0}
        surprises = [parameter for parameter in found.surprises if parameter.name not in resting]
        if self._copied:
            self.probe = found
        else:
            surprises = [
                parameter for parameter in surprises if parameter.gradient == "none" or not parameter.in_optimizer
            ]
        self.surprises = surprises_in_words(surprises)


def _fits(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether copies of some tensors are small enough, the optimizer's state yet to come included."""
    size = sum(tensor.nbytes for tensor in tensors)
    if size > _MOST_BYTES:
        return False
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return device.type != "cuda" or torch.cuda.mem_get_info(device)[0] > 4 * size
