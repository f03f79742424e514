"""Whether what gets a gradient of 0 matters to what the model gives: tried with other values of all that trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from frostline.base.random_state import RngState
from frostline.evidence.checks.backward_pass import without_late_hooks
from frostline.evidence.probe.inputs import called, runs_alone, usable_batch
from frostline.evidence.probe.observe import gradient_word
from frostline.evidence.probe.step import backward, begin, clear_gradients
from frostline.evidence.snapshot import Snapshot
from frostline.evidence.tensor_copy import tensors_in

_DRAWS = 3  # of dropout
_AWAY = 0.1  # noise relative to a tensor's own values: another point, at which a model still behaves alike
_LITTLE = 0.001  # likewise, for the change that the outputs should follow
_FRESH = 0.2  # what is 0 throughout is taken to be of this size
_ROUNDING = 2  # units in the last place of an output's largest number
_TWICE = (1.8, 2.2)  # how much further the outputs go with twice the change


def always_zero(model: nn.Module, batch: Any, groups: Sequence[Sequence[str]]) -> list[str]:
    """Find what the model's outputs depend on, and that gets a gradient of 0 all the same.

    All that trains is given other values, so that a head of zeros, or a factor of LoRA that is 0, hides nothing; the
    gradient is that of all outputs, weighted at random. What still gets a gradient of 0 is then changed, group by
    group, by a little and by twice as much: an output that has a slope follows it; one that has none stays, or jumps
    (experts that are chosen by rank). Everything is put back.

    Args:
        model: The model.
        batch: What `try_batch` takes.
        groups: Names of the parameters in question, those together that are changed together.

    Returns:
        The names in groups that the outputs follow. None of them where the same call gives different outputs.

    Raises:
        Exception: Whatever the model raises on the batch.
    """
    batch = usable_batch(model, batch)
    snapshot = Snapshot(model, None, batch=batch)
    try:
        begin(model)
        without_late_hooks(model)
        with snapshot.watching(), torch.enable_grad():
            shaken, waiting = _Shaken(model, batch), list(groups)
            found: set[str] = set()
            for _ in range(_DRAWS):
                shaken.redraw()
                waiting = [left for names in waiting if (left := shaken.at_zero(names))]
                found.update(name for names in waiting if shaken.follows(names) for name in names)
                waiting = [names for names in waiting if found.isdisjoint(names)]
                if not waiting:
                    break
            return [name for names in groups for name in names if name in found]
    finally:
        snapshot.restore()


class _Shaken:
    """A model away from where it stands, and what it gives there."""

    def __init__(self, model: nn.Module, batch: Any) -> None:
        self._model, self._batch = model, batch
        self._parameters = dict(model.named_parameters())
        self._noise = torch.Generator().manual_seed(0)
        self._shake([parameter for parameter in self._parameters.values() if parameter.requires_grad], _AWAY)

    def redraw(self) -> None:
        """Take another draw of dropout, which may hide by chance what an output depends on."""
        self._random = RngState()
        clear_gradients(self._model)
        outputs = self._outputs()
        self._usual = [tensor.detach().clone() for tensor in outputs]
        backward(torch.stack([self._weighted(tensor) for tensor in outputs]).sum(), None)
        self._steady = all(_moved(one, other) == 0 for one, other in zip(self._usual, self._outputs(), strict=True))

    def at_zero(self, names: Sequence[str]) -> list[str]:
        """Those of some parameters whose gradient is 0 throughout."""
        return [name for name in names if gradient_word(self._parameters[name]) == "zero"]

    def follows(self, names: Sequence[str]) -> bool:
        """Whether one of the outputs goes on in proportion, when a change of some parameters is doubled."""
        if not self._steady:
            return False
        tensors = [self._parameters[name] for name in names]
        values = [tensor.detach().clone() for tensor in tensors]
        self._shake(tensors, _LITTLE)
        once = self._outputs()
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.add_(tensor - value)
        twice = self._outputs()
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        least, most = _TWICE
        moves = ((_moved(*pair), _moved(pair[0], far)) for *pair, far in zip(self._usual, once, twice, strict=False))
        return any(least * near <= far <= most * near for near, far in moves if near)

    def _outputs(self) -> list[torch.Tensor]:
        """What the model gives, each time at the same draw; gradients are on, as hooks in the forward may need them."""
        self._random.restore()
        output = called(runs_alone(self._model), self._batch)
        return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]

    def _shake(self, tensors: Iterable[torch.Tensor], size: float) -> None:
        """Add noise to tensors, of a size relative to what they hold."""
        with torch.no_grad():
            for tensor in tensors:
                mean = float(tensor.abs().float().mean()) if tensor.numel() else 0.0
                noise = torch.randn(tensor.shape, generator=self._noise) * size * (mean or _FRESH)
                tensor.add_(noise.to(tensor.device, tensor.dtype))

    def _weighted(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor's numbers, each with a random weight."""
        wide = tensor.float()
        return (wide * torch.randn(wide.shape, generator=self._noise).to(wide.device)).sum()


def _moved(before: torch.Tensor, after: torch.Tensor) -> float:
    """How far an output moved, as a norm; 0 for what rounding may have done."""
    if before.shape != after.shape or not before.numel():
        return 0.0
    difference = (after.detach().double() - before.double()).abs()
    rounding = _ROUNDING * torch.finfo(before.dtype).eps * float(before.abs().amax())
    return float(difference.norm()) if float(difference.amax()) > rounding else 0.0
