"""Which fast paths give a model's own results: tried out on the model and the batch at hand."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from frostline.anatomy.modelmap import ModelMap
from frostline.engine import products
from frostline.engine.checked import STORE_DTYPE, PathCheck, SelfCheck
from frostline.engine.finding import find_replay
from frostline.engine.fused import find_fusions
from frostline.engine.interpose import interposed
from frostline.engine.packing import MODES
from frostline.engine.paths import Paths, Runner, in_eval
from frostline.engine.replay import NotReplayable
from frostline.engine.route import Route, frost_line
from frostline.engine.single import keys_and_values, pooled_position
from frostline.engine.store.packed import Packed
from frostline.engine.trial import trial_rows
from frostline.evidence.rng import RngState
from frostline.freezing.mode import frozen_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from frostline.engine.calls import Call
    from frostline.engine.interpose import Forward
    from frostline.engine.packing import PackingMode
    from frostline.engine.replay import Replay
    from frostline.engine.single import Position

_BOUNDARIES = 4  # so many depths are tried, from the frost line down, before replay is given up
# Of configs of models that cut the padded text into chunks once it is longer than one (Reformer).
_CHUNKED = ("lsh_attn_chunk_length", "local_attn_chunk_length")
# Largest difference that counts as none, as a multiple of the values' size: the promise in fp32, rounding else.
_LOGITS = {torch.float32: 1e-5, torch.float64: 1e-9}
_GRADIENTS = {torch.float32: 1e-4, torch.float64: 1e-8}
_HALF = 0.05


@dataclass(frozen=True)
class _Result:
    logits: Tensor
    gradients: tuple[Tensor | None, ...]


def admit(
    model: nn.Module,
    forward: Forward,
    call: Call,
    *,
    boundary: str | None = None,
    padding_free: bool = True,
    store_dtype: torch.dtype | None = None,
) -> SelfCheck:
    """Try the fast paths of a model on a few rows of a batch, and say which give the plain path's results.

    Dropout is off while they are tried, and on again afterwards; parameters, gradients and random states stay as
    they are.

    Args:
        model: The model inside its wrappers.
        forward: Its forward.
        call: What the forward is called with.
        boundary: The lowest unit that is run from stored activations; the frost line unless told.
        padding_free: Whether its layers may run without padding.
        store_dtype: What activations are stored as, of which the effect is measured; None to store them as they are.
    """
    started = time.perf_counter()
    rng = RngState()
    try:
        with in_eval(model):
            trial = _Trial(model, forward, trial_rows(call, model))
            checks, paths = trial.run(boundary, MODES if padding_free else ())
            if paths.replay is not None and store_dtype is not None:
                checks.append(trial.rounded(paths, store_dtype))
    finally:
        rng.restore()
    at = paths.replay.route.boundary if paths.replay is not None else None
    return SelfCheck(tuple(checks), at, time.perf_counter() - started, paths)


class _Trial:
    """The fast paths of one model, tried on one small batch."""

    def __init__(self, model: nn.Module, forward: Forward, call: Call) -> None:
        self._model = model
        self._runner = Runner(model, forward)
        self._forward = forward
        self._call = call.without_labels()
        self._anatomy = ModelMap.of(model)
        self._chains = Route.at(model, self._anatomy.units[0].name, self._anatomy).chains
        self._trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._dtype = next(model.parameters()).dtype
        self._checks: list[PathCheck] = []

    def run(self, boundary: str | None, modes: Sequence[PackingMode]) -> tuple[list[PathCheck], Paths]:
        if any(hasattr(getattr(self._model, "config", None), name) for name in _CHUNKED):
            how = "its attention works in chunks of the padded text, which few short rows do not show"
            return [PathCheck("all", admitted=False, how=how)], Paths()
        try:
            self._plain, strength = self._reference()
        except Exception as error:  # noqa: BLE001 - the model's own code, which may not train in eval mode
            return [_failed("all", error)], Paths()
        paths = self._tables(self._products(self._padding_free(modes)))
        position = pooled_position(strength, self._call.rows) if strength is not None else None
        replayed = self._replay(paths, boundary or frost_line(self._model, self._anatomy), position)
        if replayed is None or self._chains_above(replayed):
            one = self._one_position(replayed or paths, position)
            if one is not None and replayed is not None:
                one = one if self._holds_replayed(one) else None
            return self._checks, one or replayed or paths
        return self._checks, replayed

    def _reference(self) -> tuple[_Result, Tensor | None]:
        """The plain path's results, and how strongly each position behind the last layer reaches the logits."""
        outputs: list[Tensor] = []

        def watching(original: Forward) -> Forward:
            def forward(*arguments: Any, **options: Any) -> Any:
                output = original(*arguments, **options)
                self._note_autocast()
                tensors = [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, torch.Tensor)]
                if tensors and tensors[0].shape[:2] == self._call.shape:
                    outputs.append(tensors[0] if tensors[0].requires_grad else tensors[0].requires_grad_())
                return output

            return forward

        forwards: dict[nn.Module, Forward] = {}
        if self._chains:
            last = self._model.get_submodule(self._chains[-1][-1])
            forwards = {last: watching(last.forward)}
        with interposed(forwards):
            result = self._measure(lambda: self._forward(**self._call.inputs), outputs)
        gradients, reached = result.gradients[: len(self._trains)], result.gradients[len(self._trains) :]
        result = _Result(result.logits, gradients)
        if len(reached) != 1 or reached[0] is None:  # a layer that runs several times is none for one position
            return result, None
        return result, reached[0].abs().sum(dim=-1)

    def _note_autocast(self) -> None:
        """Within autocast, values are rounded as its dtype is."""
        device = self._call.rows.mask.device.type
        if torch.is_autocast_enabled(device):
            self._dtype = torch.get_autocast_dtype(device)

    def _measure(self, run: Callable[[], Any], outputs: Sequence[Tensor] = ()) -> _Result:
        with torch.enable_grad():
            logits = _logits_of(run())
            # Any fixed weighting in which no two logits count alike.
            weights = torch.linspace(0.5, 1.5, logits.numel(), device=logits.device).reshape(logits.shape)
            wanted = [*self._trains, *outputs]
            if not wanted or not logits.requires_grad:
                return _Result(logits.detach(), ())
            gradients = torch.autograd.grad((logits.float() * weights).sum(), wanted, allow_unused=True)
        return _Result(logits.detach(), gradients)

    def _try(self, path: str, how: str, run: Callable[[], Any]) -> PathCheck:
        """Compare a path with the plain one."""
        try:
            result = self._measure(run)
        except Exception as error:  # noqa: BLE001 - the model's own code, given what it does not expect
            return _failed(path, error)
        logits = _difference(result.logits, self._plain.logits, 1.0)
        scale = max((float(own.abs().max()) for own in self._plain.gradients if own is not None), default=0.0)
        gradients = max(
            (
                _difference(own, other, 1e-3 * scale)
                for own, other in zip(result.gradients, self._plain.gradients, strict=True)
            ),
            default=0.0,
        )
        admitted = logits <= _LOGITS.get(self._dtype, _HALF) and gradients <= _GRADIENTS.get(self._dtype, _HALF)
        return PathCheck(
            path, admitted, how if admitted else "its results differ from the plain path's", logits, gradients
        )

    def _padding_free(self, modes: Sequence[PackingMode]) -> Paths:
        best: PathCheck | None = None
        for mode in modes if self._chains else ():
            for trim in (True, False):
                paths = Paths(trim=trim, packing=mode, chains=self._chains)
                check = self._try("padding-free", _PACKED[mode], partial(self._runner.run, self._call, paths))
                if check.admitted:
                    self._checks.append(check)
                    return replace(paths, places=self._runner.places)
                best = best or check
        why = "it has no chain of layers" if modes else "switched off"
        self._checks.append(best or PathCheck("padding-free", admitted=False, how=why))
        return Paths(trim=self._trims(), chains=self._chains)

    def _products(self, paths: Paths) -> Paths:
        """The same with oneDNN for the products, where it is faster and right."""
        if not products.is_faster(self._call.rows.mask.device, self._dtype):
            return paths
        faster = replace(paths, products=True)
        how = f"oneDNN, {products.gain():.1f} times as fast here as torch's own choice"
        check = self._try("matrix products", how, partial(self._runner.run, self._call, faster))
        if not check.admitted:
            self._checks.append(check)
            return paths
        within = replace(faster, fusions=find_fusions(self._model, lambda: self._forward(**self._call.inputs)))
        if not within.fusions or not self._same_logits(self._call, within, self._plain.logits):
            self._checks.append(check)
            return faster
        self._checks.append(replace(check, how=f"{how}, activations within where no gradient is needed"))
        return within

    def _tables(self, paths: Paths) -> Paths:
        """The same with gradients of large embedding tables in memory that is kept."""
        if not self._runner.tables.forwards():
            return paths
        kept = replace(paths, tables=True)
        how = "those of large tables are taken in memory that is kept"
        check = self._try("embedding gradients", how, partial(self._runner.run, self._call, kept))
        self._checks.append(check)
        return kept if check.admitted else paths

    def _same_logits(self, call: Call, paths: Paths, plain: Tensor) -> bool:
        """Whether paths change no logits where no gradient is asked for."""
        try:
            with torch.no_grad():
                logits = _logits_of(self._runner.run(call, paths))
        except Exception:  # noqa: BLE001 - the model's own code, given what it does not expect
            return False
        return _difference(logits, plain, 1.0) <= _LOGITS.get(self._dtype, _HALF)

    def _trims(self) -> bool:
        """Whether cutting off positions that are padding in every row changes nothing."""
        rows = self._call.rows
        short = [row for row, length in enumerate(rows.lengths.tolist()) if length < rows.length]
        if not short:
            return False
        return self._same_logits(self._call.select(short), Paths(trim=True), self._plain.logits[short])

    def _replay(self, paths: Paths, line: str | None, position: Position | None) -> Paths | None:
        names = [unit.name for unit in self._anatomy.units]
        boundaries = list(reversed(names[: names.index(line) + 1]))[:_BOUNDARIES] if line is not None else []
        routes = [Route.at(self._model, boundary, self._anatomy) for boundary in boundaries]
        failed: PathCheck | None = None
        for route, below in zip(routes, [*routes[1:], None], strict=True):
            if not route.skipped:
                break
            check, replayed = self._replay_at(route, paths, position)
            try:
                draws = check.admitted and self._draws(replayed)
            except Exception as error:  # noqa: BLE001 - the model's own code, given more rows than one
                check, draws = _failed("replay", error), False
            if draws:
                # Dropout before the head acts if activations enter beneath it. What remains is that between frozen
                # layers, which is as off as that inside them.
                lowest = below is None or below.skipped != route.skipped
                how = f"{check.how}; dropout beneath it, outside of frozen modules, is left out"
                check = replace(check, admitted=lowest, how=how)
            if check.admitted:
                self._checks.append(check)
                return replayed
            failed = failed or check
        self._checks.append(
            failed or PathCheck("replay", admitted=False, how="no frozen layer lies beneath all that trains")
        )
        return None

    def _draws(self, paths: Paths) -> bool:
        """Whether what would be stored depends on random numbers where all but frozen modules are in train mode."""
        frozen = set(frozen_modules(self._model))
        # What has buffers may write them in train mode.
        train = [module for module in self._model.modules() if module not in frozen and not module._buffers]  # noqa: SLF001
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(self._runner.tap(self._call, paths, train=train))
        return any(not torch.equal(own.values, found[1][name].values) for name, own in found[0].items())

    def _replay_at(self, route: Route, paths: Paths, position: Position | None) -> tuple[PathCheck, Paths]:
        try:
            replay = find_replay(self._model, self._forward, route, self._call.inputs, self._call.shape)
        except NotReplayable as reason:
            return PathCheck("replay", admitted=False, how=f"at {route.boundary}: {reason}"), paths
        if not replay.skipped:
            return PathCheck("replay", admitted=False, how=f"at {route.boundary} no layer can be skipped"), paths
        paths = replace(paths, replay=replay)
        failed = PathCheck("replay", admitted=False, how="was not tried")
        for fewer in self._ways_to_store(paths, replay, position):
            how = f"runs from what is stored for {route.boundary}"
            how += ", as long as a text is padded alike" if fewer.whole else ""
            check = self._try("replay", how, partial(self._from_store, fewer))
            if check.admitted:
                return check, fewer
            failed = check
        return failed, paths

    def _ways_to_store(self, paths: Paths, replay: Replay, position: Position | None) -> Iterator[Paths]:
        """What is worth trying, from the least that is stored to the most."""
        if position is not None and not self._chains_above(paths):
            streams = {stream.name: position for stream in replay.streams if stream.is_plain}
            for folded in self._foldings() if paths.packing == "attention" else ():
                yield replace(paths, single=position, folded=folded, stored_positions=streams)
            if streams:
                yield replace(paths, stored_positions=streams)
        yield paths
        yield replace(paths, trim=False, whole=True)

    def rounded(self, paths: Paths, dtype: torch.dtype) -> PathCheck:
        """What comes of storing activations in another dtype; whoever asks for it gets it, whatever comes of it."""
        how = f"activations are stored as {str(dtype).removeprefix('torch.')}"
        check = self._try(STORE_DTYPE, how, partial(self._from_store, paths, dtype))
        return replace(check, admitted=True, how=how)

    def _from_store(self, paths: Paths, dtype: torch.dtype | None = None) -> Any:
        """Run from what is stored, as it will be: each row's values come from the row alone."""
        alone = [self._call.select([row]) for row in range(self._call.rows.count)]
        taps = [self._runner.tap(row if paths.whole else row.trimmed(), paths) for row in alone]
        values = {}
        for name in taps[0]:
            whole = torch.cat([own[name].values for own in taps])
            if dtype is not None and whole.is_floating_point():
                whole = whole.to(dtype).to(whole.dtype)
            values[name] = Packed(whole, torch.cat([own[name].lengths for own in taps]))
        return self._runner.run(self._call, paths, values)

    def _one_position(self, paths: Paths, position: Position | None) -> Paths | None:
        if position is None:
            self._checks.append(PathCheck("one position", admitted=False, how="the head reads more than one position"))
            return None
        if paths.packing != "attention":
            why = "its attention is not called through transformers' interface"
            self._checks.append(PathCheck("one position", admitted=False, how=why))
            return None
        for folded in self._foldings():
            one = replace(paths, single=position, folded=folded)
            how = f"the last layer runs for the {position} only"
            how += ", without keys and values" if folded else ""
            check = self._try("one position", how, partial(self._runner.run, self._call, one))
            if check.admitted:
                break
        self._checks.append(check)
        return one if check.admitted else None

    def _holds_replayed(self, paths: Paths) -> bool:
        return self._try("replay", "", lambda: self._from_store(paths)).admitted

    def _chains_above(self, paths: Paths) -> bool:
        return paths.replay is not None and bool(paths.replay.route.chains)

    def _foldings(self) -> tuple[bool, ...]:
        """In which ways the last layer may be run for one position, the cheapest first."""
        projections = keys_and_values(self._model.get_submodule(self._chains[-1][-1])) if self._chains else None
        if projections is None:
            return (False,)
        return (True, False) if all(type(module) is nn.Linear for module in projections) else (False,)


_PACKED = {
    "attention": "its layers run on real tokens only",
    "modules": "its layers run on real tokens only, but for the modules that mix tokens",
}


def _failed(path: str, error: Exception) -> PathCheck:
    known = isinstance(error, NotReplayable)
    how = str(error) if known else f"its code fails: {type(error).__name__}: {error}"
    return PathCheck(path, admitted=False, how=how)


def _logits_of(output: Any) -> Tensor:
    logits = getattr(output, "logits", None)
    if not isinstance(logits, torch.Tensor):
        raise NotReplayable("its forward gives out no logits")
    return logits


def _difference(own: Tensor | None, other: Tensor | None, least: float) -> float:
    """Largest difference, relative to the largest value or `least`; a gradient that is missing counts as zeros."""
    if own is None or other is None:
        there = own if own is not None else other
        return 0.0 if there is None or not there.any() else float("inf")
    if own.shape != other.shape:
        return float("inf")
    size = max(least, float(other.abs().max())) if other.numel() else 1.0
    difference = float((own - other).abs().max()) if other.numel() else 0.0
    relative = difference / size if size else difference
    return relative if math.isfinite(relative) else math.inf
