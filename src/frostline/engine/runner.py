"""Running a model's own forward on its fast paths."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from frostline.base.modules import module_at
from frostline.compat.tensors import tree_map
from frostline.engine.dropout import NoDropout
from frostline.engine.interpose import interposed
from frostline.engine.kernels import onednn_linear as products
from frostline.engine.kernels.embedding_gradients import Tables
from frostline.engine.late_logits import LateHead, head_of
from frostline.engine.outputs import tensors_of
from frostline.engine.packing.last_layer import Position, Single, keys_and_values, places_of
from frostline.engine.packing.packing import Packing
from frostline.engine.replay.boundary_tensors import from_store, to_store
from frostline.engine.replay.replay import Enough, NotReplayable, leaving
from frostline.engine.selection import marked, selection_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from frostline.engine.batch_inputs import Call
    from frostline.engine.fast_paths import FastPaths
    from frostline.engine.interpose import Forward
    from frostline.engine.replay.replay import Leaf, Stream
    from frostline.store.packed import Packed


class Runner:
    """Runs a model's own forward on its fast paths.

    Args:
        model: The model inside its wrappers.
        forward: Its forward.

    Attributes:
        forward: As given; another one may take its place.
        tables: The large embedding tables.
        late_head: The head of a language model; None where there is none.
        places: Where values had the axes of the batch when layers last ran packed.
        calls: How often each chain of layers was entered then.
        is_loose: Whether one was entered with something else than the batch's tokens.
    """

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        self._model = model
        self.forward = forward
        self.tables = Tables(model)
        head = head_of(model)
        self.late_head = LateHead(head) if head is not None else None
        self.places: frozenset[str] = frozenset()
        self.calls: dict[int, int] = {}
        self.is_loose = False
        self._linear: dict[frozenset[str], list[nn.Module]] = {}

    def run(
        self, call: Call, paths: FastPaths, values: Mapping[str, Packed] | None = None, *, verifies: bool = False
    ) -> Any:
        """Run the forward.

        Args:
            call: What it is called with.
            paths: What it is spared.
            values: Per stream what is stored of the rows, in their order; None to run everything.
            verifies: Whether it is looked up in the graph of autograd that no position is read but the one that is
                there, where there is only one.

        Returns:
            The model's output.

        Raises:
            NotReplayable: If it turns out that the results are not those of the model.
        """
        call = self._read(call, paths)
        replay = paths.replay if values is not None else None
        skipped = frozenset(replay.skips if replay is not None else ())
        one = paths.one_position if verifies and (paths.single or replay) else None
        records = torch.is_grad_enabled()
        nodes: list[Any] = []
        calls: Counter[str] = Counter()
        entering: dict[Leaf, Tensor] = {}
        with self._packed(call, paths, skipped, marks=one is not None) as (layers, packing):
            if replay is not None and values is not None:
                packed = {path for chain in paths.chains for path in chain} if packing is not None else set()
                for stream in replay.streams:
                    marks = one is not None and stream.name in paths.stored_positions
                    for leaf in stream.leaves:
                        value = from_store(stream, values[stream.name], call.rows, paths, packs=leaf.path in packed)
                        if marks:
                            value, node = marked(value)
                            nodes.append(node)
                        entering[leaf] = value
                layers.update(replay.entering(self._model, entering, layers, calls))
            try:
                with interposed(layers), torch.set_grad_enabled(records or bool(nodes)):
                    output = self.forward(**call.inputs)
                output = replay.completed(output, entering) if replay is not None else output
            finally:
                torch.set_grad_enabled(records)
        if replay is not None and calls != replay.calls:
            raise NotReplayable("its layers are called another number of times than when they were tried")
        if packing is not None:
            known = paths.calls or packing.calls
            is_loose = packing.loose and paths.calls is not None
            if is_loose or any(known[chain] != times for chain, times in packing.calls.items()):
                raise NotReplayable("its layers run on something else than the batch's tokens")
            nodes += packing.single_nodes
        if one is not None:
            _refuse_other_positions(output, nodes, call, one)
            output = output if records else _detached(output)
        return output

    def _read(self, call: Call, paths: FastPaths) -> Call:
        call = call.with_aligned(paths.aligned) if paths.aligned is not None else call
        call = call.with_positions(paths.positions) if paths.positions is not None else call
        return call.trimmed() if paths.trim else call

    def tap(self, call: Call, paths: FastPaths) -> dict[str, Packed]:
        """Run the prefix without autograd, in the modes that modules are in.

        Args:
            call: What the forward is called with.
            paths: What it is spared, replay included.

        Returns:
            Per stream what is to be stored of the rows.

        Raises:
            NotReplayable: If a row's values have another shape than those of the rows before.
        """
        return self.tap_each(call, (paths,))[0]

    def tap_each(self, call: Call, boundaries: Sequence[FastPaths]) -> list[dict[str, Packed]]:
        """Run the prefix of the deepest of several boundaries once, and take what crosses each of them.

        Args:
            call: What the forward is called with.
            boundaries: What it is spared at each; they are `alike`, the last one is the deepest.

        Returns:
            Per boundary and stream what is to be stored of the rows.

        Raises:
            NotReplayable: If a row's values have another shape than those of the rows before.
        """
        deepest = boundaries[-1]
        call = self._read(call, deepest)
        found: list[dict[str, Packed]] = [{} for _ in boundaries]
        pooled: list[Tensor] = []

        def keep(number: int, stream: Stream, value: Tensor) -> None:
            if value.requires_grad and stream.name not in boundaries[number].stored_positions:
                pooled.append(value)
            found[number][stream.name] = to_store(stream, value.detach(), call.rows, boundaries[number])

        taps = [
            (paths.replay, partial(keep, number)) for number, paths in enumerate(boundaries) if paths.replay is not None
        ]
        if not taps:
            return found
        with (
            torch.no_grad(),
            NoDropout() if deepest.drops else nullcontext(),
            self._packed(call, deepest, frozenset(), marks=True) as (layers, packing),
        ):
            layers.update(leaving(self._model, taps, layers))
            with interposed(layers), suppress(Enough):
                output = self.forward(**call.inputs)
                for replay, keep_here in taps:
                    for stream, value in replay.given_out(output):
                        keep_here(stream, value)
        if any(len(values) < len(replay.streams) for values, (replay, _) in zip(found, taps, strict=True)):
            raise NotReplayable("not all that was stored is there")
        if deepest.single is not None and packing is not None and pooled:
            _refuse_other_positions(pooled, packing.single_nodes, call, deepest.single)
        return found

    def trains_beneath(self, call: Call, paths: FastPaths) -> bool:
        """Tell by the graph of autograd whether anything that trains has a part in what would be stored.

        Args:
            call: What the forward is called with.
            paths: What it is spared, replay included.
        """
        found: list[Tensor] = []
        paths = replace(paths, single=None, folded=False)
        call = self._read(call, paths)
        if paths.replay is None:
            return False
        with torch.enable_grad(), NoDropout(), self._packed(call, paths, frozenset()) as (layers, _):
            layers.update(leaving(self._model, [(paths.replay, lambda _, value: found.append(value))], layers))
            with interposed(layers), suppress(Enough):
                output = self.forward(**call.inputs)
                found += [value for _, value in paths.replay.given_out(output)]
            total = sum((value.sum() for value in found if value.requires_grad), start=torch.zeros(()))
            trains = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
            if not total.requires_grad or not trains:
                return False
            gradients = torch.autograd.grad(total, trains, allow_unused=True)
        return any(gradient is not None for gradient in gradients)

    @contextmanager
    def _packed(
        self, call: Call, paths: FastPaths, skipped: frozenset[str], *, marks: bool = False
    ) -> Iterator[tuple[dict[nn.Module, Forward], Packing | None]]:
        forwards = products.forwards(self._linear_but(skipped)) if paths.products else {}
        forwards |= self.tables.forwards() if paths.tables else {}
        if paths.late_logits and self.late_head is not None:
            head = self.late_head.head
            forwards[head] = self.late_head.forward(forwards.get(head, head.forward))
        if paths.packing is None or skipped.issuperset(path for chain in paths.chains for path in chain):
            yield forwards, None
            return
        packing = Packing(call.rows, paths.packing, paths.places)
        for number, chain in enumerate(paths.chains):
            live = [module_at(self._model, path) for path in chain if path not in skipped]
            if live:
                single = self._single(live[-1], call, paths, marks=marks) if chain is paths.chains[-1] else None
                forwards |= packing.forwards(live, number, single)
        with packing.attending():
            yield forwards, packing
        self.places, self.calls = frozenset(packing.seen), dict(packing.calls)
        self.is_loose = packing.loose

    def _linear_but(self, skipped: frozenset[str]) -> list[nn.Module]:
        """The linear layers outside of some modules; one that is put in later is run as it is."""
        if skipped not in self._linear:
            inside = {inner for path in skipped for inner in self._model.get_submodule(path).modules()}
            self._linear[skipped] = [
                module for module in self._model.modules() if module not in inside and products.is_linear(module)
            ]
        return self._linear[skipped]

    def _single(self, layer: nn.Module, call: Call, paths: FastPaths, *, marks: bool) -> Single | None:
        if paths.single is None:
            return None
        return Single(paths.single, call.rows, keys_and_values(layer) if paths.folded else None, marks=marks)


def _refuse_other_positions(output: Any, nodes: Sequence[Any], call: Call, position: Position) -> None:
    """Look whether one position is all that outputs read of some tensors.

    Raises:
        NotReplayable: If it is not, or if that cannot be told.
    """
    places = places_of(position, call.rows).cpu()
    outputs = tensors_of(output).values()
    for node in nodes:
        selection = selection_of(outputs, node, call.shape)
        if selection is None or not torch.equal(selection.places, places):
            raise NotReplayable(f"its head reads more of these rows than the {position}")


def _detached(output: Any) -> Any:
    """The same output without a graph.

    Raises:
        NotReplayable: If tensors are held in something that cannot be taken apart.
    """
    output = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, output)
    if any(tensor.requires_grad for tensor in tensors_of(output).values()):
        raise NotReplayable("its output is none that can be taken apart")
    return output


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Have all modules in eval mode for a while, without a word to those that are told of it."""
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        module.training = False
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
