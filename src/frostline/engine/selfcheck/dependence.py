"""Looking what stored activations depend on besides their rows: random numbers, state, modes, what trains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from frostline.base.random_state import seed_all
from frostline.engine.dropout import NoDropout
from frostline.engine.runner import in_eval
from frostline.engine.selfcheck.input_reads import reads_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from frostline.engine.batch_inputs import Call
    from frostline.engine.fast_paths import FastPaths
    from frostline.engine.runner import Runner
    from frostline.engine.selfcheck.comparison import Comparison
    from frostline.engine.selfcheck.result import PathCheck
    from frostline.store.packed import Packed


class Dependence:
    """What is stored of one batch, computed again and again with other things around it.

    Args:
        model: The model inside its wrappers.
        runner: Runs it.
        call: The batch.
        compares: Knows what the plain forward changes, and puts it back.
        plain: Runs the plain forward on the batch.
    """

    def __init__(
        self, model: nn.Module, runner: Runner, call: Call, compares: Comparison, plain: Callable[[], Any]
    ) -> None:
        self._model = model
        self._runner = runner
        self._call = call
        self._compares = compares
        self._plain = plain

    def look(self, check: PathCheck, paths: FastPaths, is_lowest: bool) -> tuple[PathCheck, FastPaths]:
        """Look what stored activations depend on, and say whether they may be stored.

        Args:
            check: How replay compared.
            paths: What the forward is spared, replay included.
            is_lowest: Whether no boundary beneath would skip other modules.

        Returns:
            The check, refused where they depend on more than the rows; and the paths, which note what they depend on.
        """
        call = self._call
        if torch.is_inference_mode_enabled():
            how = "in inference mode it cannot be told what depends on what trains"
            return replace(check, admitted=False, how=how), paths
        if self._runner.trains_beneath(call, paths):
            how = "what would be stored depends on what trains"
            return replace(check, admitted=False, how=how), paths
        self._compares.restore()
        first: dict[str, Packed] = {}
        with NoDropout():
            read = reads_of(call.inputs, lambda: first.update(self._tap(call, paths, seed=0)))
        if not _equal(first, self._again(paths)):
            with NoDropout():
                same = _equal(first, self._again(paths))
            if not same:
                how = "what is frozen gives something else each time: it draws random numbers, or keeps state"
                return replace(check, admitted=False, how=how), paths
            # Dropout before the head acts if activations enter beneath it. What remains is that between frozen
            # layers, which is as off as that inside them.
            how = f"{check.how}; dropout beneath it, outside of frozen modules, is left out"
            check, paths = replace(check, admitted=is_lowest, how=how), replace(paths, drops=True)
        if self._model.training:
            with in_eval(self._model):
                paths = replace(paths, by_mode=not _equal(first, self._tap(call, paths, seed=0)))
        self._compares.restore()
        return check, replace(paths, unread=self._unread(paths, first, read))

    def _unread(self, paths: FastPaths, first: Mapping[str, Packed], read: frozenset[str]) -> frozenset[str]:
        """Names of inputs on which nothing stored depends: no function is given them, and their values do not count."""
        call = self._call
        unread = {name for name, value in call.inputs.items() if isinstance(value, torch.Tensor)} - read
        if any(isinstance(module, torch.jit.ScriptModule) for module in self._model.modules()):
            return frozenset()  # of scripts it is not seen what they are given
        turned = {name: value.roll(1, 0) if call.is_per_row(value := call.inputs[name]) else value for name in unread}
        other = self._tap(replace(call, inputs=call.inputs | turned), replace(paths, drops=True), seed=0)
        self._compares.restore()
        return frozenset(unread) if _equal(first, other) else frozenset()

    def _tap(self, call: Call, paths: FastPaths, *, seed: int) -> dict[str, Packed]:
        seed_all(seed)
        return self._runner.tap(call, paths)

    def _again(self, paths: FastPaths) -> dict[str, Packed]:
        """Compute what is stored after another call, from other random numbers."""
        if self._compares.changes:
            with NoDropout(), torch.no_grad():
                self._plain()
        try:
            return self._tap(self._call, paths, seed=1)
        finally:
            self._compares.restore()


def _equal(one: Mapping[str, Packed], other: Mapping[str, Packed]) -> bool:
    """Whether the same was stored, bit by bit."""
    return one.keys() == other.keys() and all(
        torch.equal(own.values, other[name].values) and torch.equal(own.lengths, other[name].lengths)
        for name, own in one.items()
    )
