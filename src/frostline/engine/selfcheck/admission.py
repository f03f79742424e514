"""Which fast paths give a model's own results: tried out on the model and the call at hand."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property, partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.base.random_state import RngState, seed_all
from frostline.compat.tensors import tree_flatten, tree_unflatten
from frostline.engine.dropout import NoDropout
from frostline.engine.fast_paths import FastPaths
from frostline.engine.interpose import interposed
from frostline.engine.kernels import onednn_linear as products
from frostline.engine.outputs import tensors_of
from frostline.engine.packing.last_layer import keys_and_values, position_named
from frostline.engine.packing.packing import MODES
from frostline.engine.replay.boundary import Route, frost_line
from frostline.engine.replay.discovery import find_replay
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.runner import Runner
from frostline.engine.selection import marked, selection_of
from frostline.engine.selfcheck.comparison import Comparison, failed
from frostline.engine.selfcheck.dependence import Dependence
from frostline.engine.selfcheck.model_state import KeptState
from frostline.engine.selfcheck.perturbed import perturbed
from frostline.engine.selfcheck.result import STORE_DTYPE, PathCheck, SelfCheck
from frostline.engine.selfcheck.together import fallbacks, from_rows_alone, settle
from frostline.engine.selfcheck.trial_rows import MOST_ROWS, aligned_inputs, varied_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from frostline.engine.batch_inputs import Call
    from frostline.engine.interpose import Forward
    from frostline.engine.packing.last_layer import Position
    from frostline.engine.packing.packing import PackingMode
    from frostline.engine.replay.replay import Replay
    from frostline.engine.selection import Selection
    from frostline.store.packed import Packed

_BOUNDARIES = 4  # so many depths are tried, from the frost line down, before replay is given up
# Of configs of models that leave out whole layers, or mask parts of the sound, by chance.
_RANDOM = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop", "apply_spec_augment")
# Of configs of models that cut the padded text into chunks once it is longer than one (Reformer).
_CHUNKED = ("lsh_attn_chunk_length", "local_attn_chunk_length")


def admit(
    model: nn.Module,
    forward: Forward,
    call: Call,
    *,
    boundary: str | None = None,
    padding_free: bool = True,
    store_dtype: torch.dtype | None = None,
) -> SelfCheck:
    """Try the fast paths of a model on a few rows of a call, and say which give the plain path's results.

    Modules are in the modes that they are in, dropout is at 0 while paths are tried; gradients are compared if autograd
    records. Parameters, gradients, random states and whatever the model keeps stay as they are.

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
    per_token: frozenset[str] = frozenset()
    dtype = next(model.parameters()).dtype
    paddings: Mapping[str, Any] = {}
    changes: frozenset[str] = frozenset()
    draws = False
    try:
        with perturbed(model):
            if any(hasattr(getattr(model, "config", None), name) for name in _CHUNKED):
                how = "its attention works in chunks of the padded text, which few short rows do not show"
                raise _Fails(PathCheck("all", admitted=False, how=how))  # noqa: TRY301 - ends as other trials do
            trial = _Trial(model, forward, call)
            per_token, dtype = trial.per_token, trial.dtype
            paddings, changes, draws = trial.call.paddings, trial.changes, trial.draws
            settled = partial(settle, model, forward, call, per_token=per_token, dtype=dtype, kept=trial.kept)
            apart = [_apart(settled([FastPaths()])[1])] if call.described_by is not None else []
            checks, paths = trial.run(boundary, MODES if padding_free else ())
            if paths.any:
                held, check = settled(fallbacks(paths))
                checks, paths = _without_lost(checks, check, paths, held), held
            if apart and paths.packing is None:
                how = "packed documents stay packed, as layers that run on padding too would run on more as rows"
                raise _Fails(PathCheck("documents", admitted=False, how=how))  # noqa: TRY301 - ends as other trials do
            checks = [*apart, *checks]
            if paths.replay is not None and store_dtype is not None:
                checks.append(trial.rounded(paths, store_dtype))
    except _Fails as fails:
        checks, paths = [fails.check], FastPaths()
    finally:
        rng.restore()
    at = paths.replay.route.boundary if paths.replay is not None else None
    return SelfCheck(
        checks=tuple(checks),
        boundary=at,
        seconds=time.perf_counter() - started,
        paths=paths,
        per_token=per_token,
        dtype=dtype,
        paddings=paddings,
        changes=changes,
        draws=draws,
    )


def _without_lost(checks: list[PathCheck], together: PathCheck, paths: FastPaths, held: FastPaths) -> list[PathCheck]:
    """The checks, with the paths refused that do not hold on rows as they are."""
    lost = {
        "padding-free": held.packing is None and paths.packing is not None,
        "one position": held.one_position is None and paths.one_position is not None,
        "replay": held.replay is None and paths.replay is not None,
        "matrix products": paths.products and not held.products,
        "embedding gradients": paths.tables and not held.tables,
        "logits": paths.late_logits and not held.late_logits,
    }
    return [
        replace(together, path=one.path) if one.admitted and lost.get(one.path) and not together.admitted else one
        for one in checks
    ]


def _apart(check: PathCheck) -> PathCheck:
    """What it says that the plain forward on documents as rows gives, or does not, what it gives on them end to end.

    Raises:
        _Fails: If it does not.
    """
    if not check.admitted:
        how = f"packed documents are no rows of their own to it: {check.how}"
        raise _Fails(replace(check, path="documents", how=how))
    return replace(check, path="documents", how="each of those packed into one row is a row of its own")


class _Fails(Exception):  # noqa: N818 - it ends a trial, and is no error
    """The plain forward itself cannot be tried."""

    def __init__(self, check: PathCheck) -> None:
        super().__init__(check.how)
        self.check = check


class _Trial:
    """The fast paths of one model, tried on one small batch.

    Attributes:
        call: The batch.
        kept: What the model holds.
    """

    _positions: int | None = None  # of rows that are no texts, where one of them is read

    def __init__(self, model: nn.Module, forward: Forward, call: Call) -> None:
        self._model = model
        self._runner = Runner(model, forward)
        self._forward = forward
        self._anatomy = ModelMap.of(model)
        self._chains = Route.at(model, self._anatomy.units[0].name, self._anatomy).chains
        self._checks: list[PathCheck] = []
        self._selection: Selection | None = None
        self._rounds_to: torch.dtype | None = None  # by autocast
        self._alone: tuple[Any, dict[str, Packed]] | None = None  # what was stored last, and how it was computed
        self.kept = KeptState(model)
        tried = aligned_inputs(call, model, self._runs)
        few = call.select(list(range(min(call.rows.count, MOST_ROWS)))) if call.has_tokens else varied_rows(call)
        self.call = tried or few
        try:
            none = frozenset[str]()  # of rows of one width only, shapes do not tell what has a value per token
            self._compares = Comparison(
                model, self.call, self._reference, per_token=None if tried is not None else none, kept=self.kept
            )
        except Exception as error:  # the model's own code, given few rows, which may not train in eval mode
            raise _Fails(failed("all", error)) from error
        if not self._compares.plain.outputs:
            raise _Fails(PathCheck("all", admitted=False, how="its forward gives out no tensors"))
        self._is_aligned = tried is not None
        if not self.call.has_tokens and self._positions is not None:
            self.call = self.call.with_positions(self._positions)
        self._dependence = Dependence(model, self._runner, self.call, self._compares, self._plain)
        self._compares.dtype = self._rounds_to or self._compares.dtype

    @property
    def per_token(self) -> frozenset[str]:
        """Names of outputs with one value per token."""
        return self._compares.per_token

    @cached_property
    def draws(self) -> bool:
        """Whether its outputs depend on random numbers besides dropout."""
        return not all(self._compares.same_outputs(self._plain, seed=seed) for seed in (1, 2))

    @property
    def changes(self) -> frozenset[str]:
        """What the plain forward changes of what modules hold."""
        return self._compares.changes

    @property
    def dtype(self) -> torch.dtype:
        """What values are rounded to."""
        return self._compares.dtype

    def _runs(self, call: Call) -> bool:
        """Whether the plain forward takes a call."""
        try:
            with NoDropout(), torch.no_grad():
                self._forward(**call.inputs)
        except Exception:  # noqa: BLE001 - the model's own code, given what it does not expect
            return False
        finally:
            self.kept.restore()
        return True

    def _plain(self) -> Any:
        return self._forward(**self.call.inputs)

    def run(self, boundary: str | None, modes: Sequence[PackingMode]) -> tuple[list[PathCheck], FastPaths]:
        """Try all."""
        paths = self._logits(self._tables(self._products(self._padding_free(modes))))
        position = position_named(self._selection.places, self.call.rows) if self._selection is not None else None
        if position is not None and self._selection is not None:
            paths = replace(paths, is_fixed=self._selection.is_fixed and not self.draws)
        replayed = self._replay(paths, boundary or frost_line(self._model, self._anatomy), position)
        paths = replayed or paths
        if replayed is None or self._chains_above(replayed):
            paths = self._one_position(paths, position) or paths
        return self._checks, paths if paths.one_position is not None else replace(paths, positions=None)

    def _reference(self) -> Any:
        """Run the plain path; see which position behind the last layer its outputs read, by the graph."""
        nodes: list[Any] = []
        shapes: list[tuple[int, int]] = []

        def watching(original: Forward) -> Forward:
            def forward(*arguments: Any, **options: Any) -> Any:
                output = original(*arguments, **options)
                leaves, spec = tree_flatten(output)
                places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
                if places and self._has_positions(leaves[places[0]]) and not torch.is_inference_mode_enabled():
                    torch.set_grad_enabled(True)  # until the forward ends
                    shapes.append((leaves[places[0]].shape[0], leaves[places[0]].shape[1]))
                    leaves[places[0]], node = marked(leaves[places[0]])
                    nodes.append(node)
                return tree_unflatten(leaves, spec)

            return forward

        def noting(original: Forward) -> Forward:
            def forward(*arguments: Any, **options: Any) -> Any:
                self._note_autocast()
                return original(*arguments, **options)

            return forward

        self._note_autocast()
        forwards: dict[nn.Module, Forward] = {}
        if self._anatomy.stacks:
            last = self._model.get_submodule(self._anatomy.stacks[-1].layers[-1][-1])
            forwards[last] = noting(last.forward)
        if self._chains:
            last = self._model.get_submodule(self._chains[-1][-1])
            forwards[last] = watching(forwards.get(last, last.forward))
        records = torch.is_grad_enabled()
        try:
            with interposed(forwards):
                output = self._plain()
        finally:
            torch.set_grad_enabled(records)
        if len(nodes) == 1:  # a layer that runs several times is none for one position
            self._selection = selection_of(tensors_of(output).values(), nodes[0], shapes[0])
            self._positions = shapes[0][1] if self._selection is not None and not self.call.has_tokens else None
        return output

    def _has_positions(self, hidden: Tensor) -> bool:
        """Whether hidden states are one vector per position of the call's rows."""
        if self.call.has_tokens:
            return hidden.shape[:2] == self.call.shape
        return hidden.dim() == 3 and hidden.shape[0] == self.call.rows.count

    def _note_autocast(self) -> None:
        """Within autocast, values are rounded as its dtype is."""
        device = self.call.rows.mask.device.type
        self._rounds_to = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def _try(self, path: str, how: str, paths: FastPaths) -> PathCheck:
        return self._compares.check(path, how, partial(self._runner.run, self.call, paths))

    def _padding_free(self, modes: Sequence[PackingMode]) -> FastPaths:
        aligned = FastPaths(chains=self._chains, aligned=self.call.aligned, positions=self._positions)
        if not self._is_aligned:
            how = "its forward takes no rows of another width, so that it cannot be told what belongs to which token"
            how = how if self.call.has_tokens else "its rows are no texts"
            self._checks.append(PathCheck("padding-free", admitted=False, how=how))
            return aligned
        best: PathCheck | None = None
        for mode in modes if self._chains else ():
            for trim in (True, False):
                paths = replace(aligned, trim=trim, packing=mode)
                check = self._try("padding-free", _PACKED[mode], paths)
                if check.admitted and self._runner.is_loose:
                    how = "its layers also run on something else than the batch's tokens"
                    check = best = replace(check, admitted=False, how=how)
                if check.admitted:
                    self._checks.append(check)
                    return replace(paths, places=self._runner.places, calls=self._runner.calls)
                best = best or check
        why = "it has no chain of layers" if modes else "switched off"
        self._checks.append(best or PathCheck("padding-free", admitted=False, how=why))
        return replace(aligned, trim=self._trims(aligned))

    def _products(self, paths: FastPaths) -> FastPaths:
        """The same with oneDNN for the products, where it is faster and right."""
        if not products.is_faster(self.call.rows.mask.device, self._compares.dtype):
            return paths
        faster = replace(paths, products=True)
        how = f"oneDNN, {products.gain():.1f} times as fast here as torch's own choice"
        check = self._try("matrix products", how, faster)
        self._checks.append(check)
        return faster if check.admitted else paths

    def _tables(self, paths: FastPaths) -> FastPaths:
        """The same with gradients of large embedding tables in memory that is kept."""
        if not torch.is_grad_enabled() or not self._runner.tables.forwards():
            return paths
        kept = replace(paths, tables=True)
        check = self._try("embedding gradients", "those of large tables are taken in memory that is kept", kept)
        self._checks.append(check)
        return kept if check.admitted else paths

    def _logits(self, paths: FastPaths) -> FastPaths:
        """The same with logits of a large vocabulary only where a loss counts them."""
        if not torch.is_grad_enabled() or self._runner.late_head is None:
            return paths
        late = replace(paths, late_logits=True)
        check = self._try("logits", "its head computes those that a loss counts", late)
        self._checks.append(check)
        return late if check.admitted else paths

    def _trims(self, paths: FastPaths) -> bool:
        """Whether cutting off positions that are padding in every row changes nothing."""
        return self._try("padding", "", replace(paths, trim=True)).admitted

    def _replay(self, paths: FastPaths, line: str | None, position: Position | None) -> FastPaths | None:
        names = [unit.name for unit in self._anatomy.units]
        boundaries = list(reversed(names[: names.index(line) + 1]))[:_BOUNDARIES] if line is not None else []
        routes = [Route.at(self._model, boundary, self._anatomy) for boundary in boundaries]
        refused: PathCheck | None = None
        for route, below in zip_longest(routes, routes[1:]):
            if not route.skipped:
                break
            check, replayed = self._replay_at(route, paths, position)
            if check.admitted:
                try:
                    is_lowest = below is None or below.skipped != route.skipped
                    check, replayed = self._dependence.look(check, replayed, is_lowest)
                except Exception as error:  # noqa: BLE001 - the model's own code, given more rows than one
                    check = failed("replay", error)
            if check.admitted:
                self._checks.append(check)
                return replayed
            refused = refused or check
        how = "no frozen layer lies beneath all that trains"
        self._checks.append(refused or PathCheck("replay", admitted=False, how=how))
        return None

    @cached_property
    def _frozen_outputs(self) -> frozenset[int]:
        """Which outputs, flattened, nothing that trains has a part in."""
        if len(self._compares.plain.outputs) == 1 or torch.is_inference_mode_enabled():
            return frozenset()
        seed_all(0)
        with NoDropout(), torch.enable_grad():
            leaves = tree_flatten(self._plain())[0]
        self._compares.restore()
        tensors = ((place, leaf) for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))
        return frozenset(place for place, leaf in tensors if leaf.dim() > 1 and not leaf.requires_grad)

    def _replay_at(self, route: Route, paths: FastPaths, position: Position | None) -> tuple[PathCheck, FastPaths]:
        try:
            replay = find_replay(
                *(self._model, self._plain, route, self.call.shape, self._compares.same_outputs),
                self._frozen_outputs,
                keeps_sizes=not self.call.has_tokens,
            )
        except NotReplayable as reason:
            return PathCheck("replay", admitted=False, how=f"at {route.boundary}: {reason}"), paths
        if not replay.skipped:
            return PathCheck("replay", admitted=False, how=f"at {route.boundary} no layer can be skipped"), paths
        paths = replace(paths, replay=replay)
        check = PathCheck("replay", admitted=False, how="was not tried")
        for fewer in self._ways_to_store(paths, replay, position):
            how = f"runs from what is stored for {route.boundary}"
            how += ", as long as a text is padded alike" if fewer.whole and self.call.has_tokens else ""
            check = self._from_store("replay", how, fewer)
            if check.admitted:
                return check, fewer
        if check.outputs is not None and self.draws:
            check = replace(check, how=f"its outputs depend on random numbers besides dropout{self._by_config()}")
        return check, paths

    def _by_config(self) -> str:
        """Which settings of the config switch such random numbers on."""
        config = getattr(self._model, "config", None)
        switched_on = [f"{name}={value}" for name in _RANDOM if (value := getattr(config, name, None))]
        return f" (its config says {', '.join(switched_on)})" if switched_on else ""

    def _ways_to_store(self, paths: FastPaths, replay: Replay, position: Position | None) -> Iterator[FastPaths]:
        """What is worth trying, from the least that is stored to the most."""
        if position is not None and not self._chains_above(paths):
            streams = {stream.name: position for stream in replay.streams if stream.is_plain}
            for folded in self._foldings() if paths.packing == "attention" else ():
                yield replace(paths, single=position, folded=folded, stored_positions=streams)
            if streams:
                yield replace(paths, stored_positions=streams)
        if self.call.has_tokens:
            yield paths
        yield replace(paths, trim=False, whole=True)

    def rounded(self, paths: FastPaths, dtype: torch.dtype) -> PathCheck:
        """Measure what comes of storing in another dtype; whoever asks for it gets it, whatever comes of it."""
        how = f"activations are stored as {str(dtype).removeprefix('torch.')}"
        return replace(self._from_store(STORE_DTYPE, how, paths, dtype), admitted=True, how=how)

    def _from_store(self, path: str, how: str, paths: FastPaths, dtype: torch.dtype | None = None) -> PathCheck:
        """Try to run from what is stored, as it will be: each row's values come from the row alone."""

        def run() -> Any:
            way = replace(paths, single=None, folded=False), dtype  # the last layer is none of those beneath
            if self._alone is None or self._alone[0] != way:
                self._alone = way, from_rows_alone(self._runner, self.call, paths, dtype)
            values = self._alone[1]
            seed_all(0)
            return self._runner.run(self.call, paths, values, verifies=True)

        return self._compares.check(path, how, run)

    def _one_position(self, paths: FastPaths, position: Position | None) -> FastPaths | None:
        if position is None:
            self._checks.append(PathCheck("one position", admitted=False, how="the head reads more than one position"))
            return None
        if not self.call.has_tokens:
            paths = replace(paths, packing="attention", chains=(self._chains[-1][-1:],))
        if paths.packing != "attention":
            why = "its attention is not called through transformers' interface"
            self._checks.append(PathCheck("one position", admitted=False, how=why))
            return None
        for folded in self._foldings():
            one = replace(paths, single=position, folded=folded)
            how = f"the last layer runs for the {position} only"
            how += ", without keys and values" if folded else ""
            run = partial(self._runner.run, self.call, one, verifies=True)
            check = self._compares.check("one position", how, run)
            if check.admitted:
                break
        self._checks.append(check)
        if not check.admitted:
            return None
        return one if self.call.has_tokens else replace(one, places=self._runner.places, calls=self._runner.calls)

    def _chains_above(self, paths: FastPaths) -> bool:
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
