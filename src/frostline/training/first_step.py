"""The first real step of a training run, watched: what moved in it, and whether that is what the flags say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from accelerate.utils import DistributedType  # type: ignore[import-untyped]
from torch import nn

from frostline.evidence.copy_on_write import Watch
from frostline.evidence.optimizers import inner_optimizer, learning_rates
from frostline.evidence.probe.inputs import spread_over_processes
from frostline.evidence.probe.movement import GradientWord, Probe, ProbeParameter, surprises_in_words
from frostline.evidence.probe.observe import (
    gradient_word,
    gradient_words,
    optimizer_in_words,
    read_step,
    with_rounded_off,
)
from frostline.evidence.probe.rounding import group_of, lost_to_rounding
from frostline.evidence.tensor_copy import TensorCopy

# Copies are taken up to this size (BERT-base is 440 MB); of more, only the gradients are looked at.
_MOST_BYTES = 512 * 2**20
_SPREADING = {DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}


def can_be_watched(model: nn.Module) -> bool:
    """Whether what the optimizer steps on are the model's own parameters, and not parts spread over processes.

    Args:
        model: The model of a Trainer, whose accelerate knows what it was launched with.
    """
    return AcceleratorState().distributed_type not in _SPREADING and not spread_over_processes(model)


@dataclass(slots=True)
class _Before:
    """What was looked at before the step.

    Attributes:
        kept: Per parameter name, the parameter; copied where the step is bound to write into it.
        words: Per parameter name, the state of its gradient.
        rates: Per parameter, by id, its learning rate.
        fresh: Per name of a parameter without optimizer state, the options of its group.
        copied: Whether what the step is bound to write into was copied.
        seen: Whether the step was taken while everything else was watched.
        unwatch: Gives the optimizer its own step back; None where it has it.
    """

    kept: dict[str, TensorCopy]
    words: dict[str, GradientWord]
    rates: dict[int, float]
    fresh: dict[str, dict[str, Any]]
    copied: bool
    seen: bool = False
    unwatch: Callable[[], None] | None = None


class FirstStep:
    """Watches a training run's first step whose learning rate is above 0; nothing of the step is changed.

    What got a gradient of 0 and stayed is looked at again in the next step, as long as each step moves something that
    stayed before: a factor of LoRA has no other gradient while the factor behind it is 0, nor has what lies beneath a
    head of zeros.

    Attributes:
        probe: What the step changed; None before it, where what it changes is too large to be copied, and where the
            optimizer was not stepped by its own ``step``.
        surprises: What the last look found to contradict the flags, in words, a clause per cause.
        looks: Number of steps that were looked at.
        done: Whether there is nothing more to watch.
    """

    def __init__(self) -> None:
        self.probe: Probe | None = None
        self.surprises: Sequence[str] = ()
        self.looks = 0
        self.done = False
        self._before: _Before | None = None
        self._waiting: dict[str, ProbeParameter] = {}

    def before(self, model: nn.Module, optimizer: Any) -> None:
        """Look at the gradients, copy what the step is bound to write into, and watch all else while it is taken.

        Args:
            model: The model, after the backward.
            optimizer: The optimizer, before its step.
        """
        if self.done:
            return
        real = inner_optimizer(optimizer)
        rates = learning_rates(real)
        if not any(rates.values()):
            return  # a warmup that begins at 0
        parameters = dict(model.named_parameters())
        if self._waiting:
            self._look_again(parameters, rates)
            return
        moving = {
            name
            for name, parameter in parameters.items()
            if id(parameter) in rates and (parameter.requires_grad or parameter.grad is not None)
        }
        copied = _fits([parameters[name] for name in moving])
        self._before = _Before(
            kept={
                name: TensorCopy(parameter, copy=copied and name in moving) for name, parameter in parameters.items()
            },
            words=gradient_words(model),
            rates=rates,
            fresh={
                name: options
                for name in moving
                if not real.state.get(parameters[name]) and (options := group_of(real, parameters[name])) is not None
            },
            copied=copied,
        )
        if copied:
            _watch_step(optimizer, self._before)

    def after(self, model: nn.Module, optimizer: Any) -> None:
        """Compare with what was copied; where a gradient scaler skipped the step, wait for the next one.

        Args:
            model: The model, after the step.
            optimizer: The optimizer that took it.
        """
        before, self._before = self._before, None
        self.surprises = ()
        if before is not None and before.unwatch is not None:
            before.unwatch()
        if self.done or before is None or getattr(optimizer, "step_was_skipped", False):
            return
        self.looks += 1
        if self._waiting:
            self._judge_again(before)
        else:
            self._judge(model, optimizer, before)

    def _judge(self, model: nn.Module, optimizer: Any, before: _Before) -> None:
        """Say what the step changed."""
        real = inner_optimizer(optimizer)
        found = read_step(
            model,
            real,
            kept=before.kept,
            buffers=None,  # the forward, which moves them, was over before the first look
            words=before.words,
            rates=before.rates,
            earlier={},
            loss=None,
            said=optimizer_in_words(real),
            copied_bytes=sum(one.copied_bytes for one in before.kept.values()),
        )
        compared = before.copied and all(one.copied for one in before.kept.values() if one.written)
        if compared and before.seen:
            self.probe = found = with_rounded_off(found, _rounded_off(found, real, before))
        # A group that rests on purpose, or warms up more slowly, is no contradiction.
        surprises = [one for one in found.surprises if one.learning_rate != 0]
        if not compared:
            surprises = [one for one in surprises if one.moved or one.gradient == "none" or not one.in_optimizer]
        elif any(one.moved for one in found.parameters):
            self._waiting = {one.name: one for one in surprises if one.without_slope}
        self.surprises = surprises_in_words(one for one in surprises if one.name not in self._waiting)
        self.done = not self._waiting

    def _look_again(self, parameters: Mapping[str, nn.Parameter], rates: dict[int, float]) -> None:
        """Copy what got a gradient of 0 so far, before one more step."""
        waiting = {name: parameters[name] for name in self._waiting if name in parameters}
        if not _fits(list(waiting.values())):
            self.done = True
            return
        self._before = _Before(
            kept={name: TensorCopy(parameter, copy=True) for name, parameter in waiting.items()},
            words={name: gradient_word(parameter) for name, parameter in waiting.items()},
            rates=rates,
            fresh={},
            copied=True,
        )

    def _judge_again(self, before: _Before) -> None:
        """Say of what got a gradient of 0 whether it moves now."""
        woken = {name for name, kept in before.kept.items() if kept.moved}
        if self.probe is not None:
            self.probe = replace(
                self.probe,
                parameters=tuple(
                    replace(one, moved_later=True) if one.name in woken else one for one in self.probe.parameters
                ),
            )
        still = {name: self._waiting[name] for name in before.kept if name not in woken}
        self._waiting = still if woken else {}
        self.done = not self._waiting
        if self.done:
            self.surprises = surprises_in_words(replace(one, gradient=before.words[one.name]) for one in still.values())


def _watch_step(optimizer: Any, before: _Before) -> None:
    """Have the next step of an optimizer watched, and only that; also where it raises, nothing is left behind."""
    own = vars(optimizer).get("step")
    step = optimizer.step

    def unwatch() -> None:
        before.unwatch = None
        if own is None:
            del optimizer.step
        else:
            optimizer.step = own

    def watched(*arguments: Any, **options: Any) -> Any:
        unwatch()
        before.seen = True
        with Watch(before.kept.values(), _MOST_BYTES):
            return step(*arguments, **options)

    before.unwatch = unwatch
    optimizer.step = watched


def _rounded_off(found: Probe, optimizer: Any, before: _Before) -> set[str]:
    """Names of the parameters whose step is lost to rounding; measured for those that had no optimizer state yet."""
    stayed = {one.name: before.kept[one.name] for one in found.parameters if one.stayed_with_gradient}
    return {
        name
        for name, kept in stayed.items()
        if lost_to_rounding(optimizer, before.fresh.get(name), {}, kept.before, kept.tensor.grad)
    }


def _fits(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether copies of some tensors are small enough, the optimizer's state yet to come included."""
    size = sum(tensor.nbytes for tensor in tensors)
    if size > _MOST_BYTES:
        return False
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return device.type != "cuda" or torch.cuda.mem_get_info(device)[0] > 4 * size
