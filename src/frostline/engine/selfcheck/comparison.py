"""Comparing ways to run one call of a model with the plain one: all that it gives out, gradients, and what it keeps.

All runs begin from the same state of the model and of the random generators, in the modes that the model is in, with
dropout at 0. So whatever the fast path does otherwise shows, and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.base.random_state import seed_all
from frostline.compat.tensors import backward_pass, tree_leaves
from frostline.engine.dropout import NoDropout
from frostline.engine.outputs import tensors_of
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.selfcheck.model_state import KeptState, state_of
from frostline.engine.selfcheck.result import PathCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from frostline.engine.batch_inputs import Call

# Largest difference that counts as none, as a multiple of the values' size: the promise in fp32, rounding else.
_OUTPUTS = {torch.float32: 1e-5, torch.float64: 1e-9}
_GRADIENTS = {torch.float32: 1e-4, torch.float64: 1e-8}
_HALF = 0.05
_AT_ONCE = 1 << 20  # numbers of which a difference is held


@dataclass(frozen=True)
class Outcome:
    """What one run gave.

    Attributes:
        outputs: Every tensor that the forward gave out, by where it stood.
        gradients: Largest difference of a gradient from the plain run's, infinite where they do not compare; 0 where
            no gradient was asked for.
        state: What modules held afterwards besides parameters, by where.
    """

    outputs: Mapping[str, Tensor]
    gradients: float
    state: Mapping[str, Any]


class Comparison:
    """Runs of one call of a model beside the plain run of it.

    Whether gradients are compared, and how modules behave, is as things stand when it is made: as the call came.

    Args:
        model: The model inside its wrappers.
        call: What the plain forward is called with.
        plain: Runs it.
        per_token: Names of outputs with one value per token, of shape (rows, length, ...), of which padding does not
            count where gradients are asked for; None to tell them by their shape.
        dtype: What values are rounded to, that of the parameters unless told.
        kept: What the model holds, as it is now; None to copy it.

    Attributes:
        plain: What the plain run gave.
        gradients: Per parameter that trains, its gradient in the plain run, of a fixed weighting of all outputs; None
            where it has none. Nothing where no gradient was asked for.
        per_token: As given, or as told.
        changes: What the plain forward changed of what modules hold, by the names that `state_of` gives.
        dtype: What values are rounded to.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Call,
        plain: Callable[[], Any],
        *,
        per_token: frozenset[str] | None = None,
        dtype: torch.dtype | None = None,
        kept: KeptState | None = None,
    ) -> None:
        self._model = model
        self._call = call
        self._kept = kept or KeptState(model)
        self._differentiates = torch.is_grad_enabled()
        self._trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._weighted: frozenset[str] | None = None
        self.dtype = dtype or next(model.parameters()).dtype
        before = state_of(model)
        self.per_token: frozenset[str] = per_token or frozenset()
        self._tells = per_token is None
        self.gradients: tuple[Tensor | None, ...] | None = None
        self.plain = self.observe(plain)
        names = before.keys() | self.plain.state.keys()
        self.changes = frozenset(
            name for name in names if _value_difference(self.plain.state.get(name), before.get(name)) > 0
        )

    @property
    def tolerance(self) -> float:
        """The largest difference of outputs, relative to the larger of 1 and their size, that counts as none."""
        return _OUTPUTS.get(self.dtype, _HALF)

    def restore(self) -> None:
        """Put back what runs have changed of what modules hold."""
        self._kept.restore()

    def observe(self, run: Callable[[], Any], *, seed: int = 0) -> Outcome:
        """Run the model, and see what it gives; its state is put back.

        Args:
            run: Runs it, and gives its output.
            seed: For all random generators.
        """
        seed_all(seed)
        try:
            with NoDropout(), torch.set_grad_enabled(self._differentiates):
                output = run()
                outputs = tensors_of(output)
                if self._tells:
                    self._tells, self.per_token = False, self._with_tokens(output, outputs)
                gradients = self._differentiate(outputs)
            state = state_of(self._model)
        finally:
            self.restore()
        return Outcome({name: value.detach() for name, value in outputs.items()}, gradients, state)

    def _with_tokens(self, output: Any, outputs: Mapping[str, Tensor]) -> frozenset[str]:
        """Names of outputs with one value per token, of those of which it is noticed if a loss reads their padding."""
        noticed = {id(leaf) for leaf in tree_leaves(output)}
        return frozenset(
            name
            for name, value in outputs.items()
            if value.dim() >= 2 and tuple(value.shape[:2]) == self._call.shape and id(value) in noticed
        )

    def _differentiate(self, outputs: Mapping[str, Tensor]) -> float:
        """Take gradients of the mean of each output, its values weighted so that no two count alike.

        Returns:
            Their largest difference from the plain run's.
        """
        if not self._differentiates or not self._trains:
            self.gradients = ()
            return 0.0
        if self._weighted is None:  # what is not finite, as the loss of no labels, would hide all else
            self._weighted = frozenset(
                name
                for name, value in outputs.items()
                if value.requires_grad and value.numel() and bool(value.detach().isfinite().all())
            )
        total: Tensor | None = None
        for name in sorted(self._weighted.intersection(outputs)):
            value = self._compared(name, outputs[name]).float()
            weights = torch.linspace(0.5, 1.5, value.numel(), device=value.device).reshape(value.shape)
            mean = (value * weights).mean()
            total = mean if total is None else total + mean
        if total is not None and not total.requires_grad:
            total = None
        if self.gradients is not None:
            return self._gradient_difference(total, self.gradients)
        none: tuple[Tensor | None, ...] = (None,) * len(self._trains)
        self.gradients = none if total is None else torch.autograd.grad(total, self._trains, allow_unused=True)
        return 0.0

    def _gradient_difference(self, total: Tensor | None, plain: tuple[Tensor | None, ...]) -> float:
        """Compare each gradient as it comes and let go of it, so that no second set of them is held."""
        least = 1e-3 * max(
            (float(_largest(value)) for value in plain if value is not None and value.numel()), default=0.0
        )
        found: dict[int, float] = {}

        own_pass: list[int] = []

        def compare(place: int, gradient: Tensor) -> Tensor:
            if [backward_pass()] != own_pass:  # one within, that some function takes on its way
                return gradient
            found[place] = difference(gradient, plain[place], least)
            return gradient.new_zeros(()).expand_as(gradient)

        if total is not None:
            hooks = [total.register_hook(lambda _: own_pass.append(backward_pass()))]  # type: ignore[no-untyped-call]
            hooks += [own.register_hook(partial(compare, place)) for place, own in enumerate(self._trains)]  # type: ignore[no-untyped-call]
            try:
                torch.autograd.grad(total, self._trains, allow_unused=True)
            finally:
                for hook in hooks:
                    hook.remove()
        missing = (difference(None, own, least) for place, own in enumerate(plain) if place not in found)
        return max((*found.values(), *missing), default=0.0)

    def _compared(self, name: str, value: Tensor) -> Tensor:
        """What counts of an output: where gradients are asked for, nothing that stands behind the mask.

        Nor where rows are documents that came end to end, whose padding nobody sees.
        """
        mask = self._call.rows.mask
        is_unseen = self._differentiates or self._call.described_by is not None
        if is_unseen and name in self.per_token and value.shape[:2] == mask.shape:
            return value[mask]
        return value

    def output_difference(self, outcome: Outcome) -> float:
        """Largest difference of outputs from the plain run's, infinite where they do not compare."""
        own, other = ({n: self._compared(n, v) for n, v in one.outputs.items()} for one in (outcome, self.plain))
        return _far(own, other)

    def agrees(self, outputs: float, gradients: float) -> bool:
        """Whether such differences count as none."""
        return outputs <= self.tolerance and gradients <= _GRADIENTS.get(self.dtype, _HALF)

    def check(self, path: str, how: str, run: Callable[[], Any]) -> PathCheck:
        """Compare a fast path with the plain one.

        Args:
            path: Its name.
            how: In words, what it does.
            run: Runs the model on it.
        """
        try:
            outcome = self.observe(run)
        except Exception as error:  # noqa: BLE001 - the model's own code, given what it does not expect
            return failed(path, error)
        outputs, gradients = self.output_difference(outcome), outcome.gradients
        if self.changes and _far(outcome.state, self.plain.state) > self.tolerance:
            why = "the model keeps state from call to call, which would be another one"
            return PathCheck(path, admitted=False, how=why, outputs=outputs, gradients=gradients)
        admitted = self.agrees(outputs, gradients)
        return PathCheck(
            path, admitted, how if admitted else "its results differ from the plain path's", outputs, gradients
        )

    def same_outputs(self, run: Callable[[], Any], *, seed: int = 0) -> bool:
        """Whether a way to run it, or other random numbers, change no output where no gradient is asked for."""
        seed_all(seed)
        try:
            with NoDropout(), torch.no_grad():
                outputs = tensors_of(run())
        except Exception:  # noqa: BLE001 - the model's own code, given what it does not expect
            return False
        finally:
            self.restore()
        own, other = ({n: self._compared(n, v) for n, v in one.items()} for one in (outputs, self.plain.outputs))
        return _far(own, other) <= self.tolerance


def failed(path: str, error: Exception) -> PathCheck:
    """What is said of a path whose run failed."""
    known = isinstance(error, NotReplayable)
    how = str(error) if known else f"its code fails: {type(error).__name__}: {error}"
    return PathCheck(path, admitted=False, how=how)


def _far(own: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Largest difference of tensors and values by name, relative to the larger of 1 and their size."""
    if own.keys() != other.keys():
        return math.inf
    return max((_value_difference(own[name], other[name]) for name in own), default=0.0)


def _value_difference(own: Any, other: Any) -> float:
    if isinstance(own, torch.Tensor) and isinstance(other, torch.Tensor):
        return difference(own, other, 1.0)
    return 0.0 if type(own) is type(other) and own == other else math.inf


def difference(own: Tensor | None, other: Tensor | None, least: float) -> float:
    """Largest difference, relative to the largest value or `least`; a gradient that is missing counts as zeros."""
    if own is None or other is None:
        there = own if own is not None else other
        return 0.0 if there is None or not there.any() else math.inf
    if own.shape != other.shape or own.dtype.is_floating_point != other.dtype.is_floating_point:
        return math.inf
    if not own.numel():
        return 0.0
    if not other.dtype.is_floating_point and not other.dtype.is_complex:
        return 0.0 if torch.equal(own, other) else math.inf
    if not _largest(other).isfinite():  # what is no number has to stand in the same places
        finite = other.isfinite()
        if not bool((finite | (own == other) | (own.isnan() & other.isnan())).all()):
            return math.inf
        own, other = torch.where(finite, own, 0.0), torch.where(finite, other, 0.0)
    size = max(least, float(_largest(other)))
    own, other = (value.reshape(-1, *value.shape[1:]) for value in (own, other))  # numbers alone too have rows
    rows = max(1, _AT_ONCE // math.prod(own.shape[1:]))
    parts = [slice(first, first + rows) for first in range(0, len(own), rows)]
    largest = float(torch.stack([_largest(own[part] - other[part]) for part in parts]).max())
    relative = largest / size if size else largest
    return relative if math.isfinite(relative) else math.inf


def _largest(value: Tensor) -> Tensor:
    """The largest absolute value, taken without a copy."""
    largest: Tensor = torch.linalg.vector_norm(value, math.inf)
    return largest
