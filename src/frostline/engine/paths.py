"""The fast paths of one model, and running its forward on them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from frostline.engine import fused, products
from frostline.engine.interpose import interposed
from frostline.engine.packing import Packing, PackingMode
from frostline.engine.replay import Enough, Replay
from frostline.engine.single import Position, Single, keys_and_values
from frostline.engine.stored import from_store, to_store
from frostline.engine.tables import Tables
from frostline.modules import module_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from frostline.engine.calls import Call
    from frostline.engine.fused import Fusion
    from frostline.engine.interpose import Forward
    from frostline.engine.replay import Stream
    from frostline.engine.store.packed import Packed


@dataclass(frozen=True)
class Paths:
    """What a model's forward is spared.

    Attributes:
        trim: Whether positions that are padding in every row are cut off.
        packing: How its layers run without padding; None to run them padded.
        places: Where values have the axes of the batch; None to tell it by their shape.
        single: The one position that its last layer is run for; None to run it for all.
        folded: Whether its keys and values are folded into query and attended value there.
        products: Whether oneDNN computes the products of its linear layers.
        fusions: The activations that it computes within them, where no gradient is needed.
        tables: Whether gradients of large embedding tables are taken in memory that is kept.
        replay: How it runs from stored activations; None to run it from its inputs.
        stored_positions: Per stream of which one position only is stored, which one.
        whole: Whether what is stored of a row holds for it and its padding only, and is stored with the padding.
        chains: Per stack of the text, the paths of its layers, each taking what the one before gave out.
    """

    trim: bool = False
    packing: PackingMode | None = None
    places: frozenset[str] | None = None
    single: Position | None = None
    folded: bool = False
    products: bool = False
    fusions: tuple[Fusion, ...] = ()
    tables: bool = False
    replay: Replay | None = None
    stored_positions: Mapping[str, Position] = field(default_factory=dict)
    whole: bool = False
    chains: tuple[tuple[str, ...], ...] = ()

    @property
    def any(self) -> bool:
        """Whether it is spared anything."""
        return self.trim or self.products or self.tables or self.packing is not None or self.replay is not None


class Runner:
    """Runs a model's own forward on its fast paths.

    Args:
        model: The model inside its wrappers.
        forward: Its forward.

    Attributes:
        forward: As given; another one may take its place.
        tables: The large embedding tables.
        places: Where values had the axes of the batch when layers last ran packed.
    """

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        self._model = model
        self.forward = forward
        self.tables = Tables(model)
        self.places: frozenset[str] = frozenset()
        self._linear: dict[frozenset[str], list[nn.Module]] = {}

    def run(self, call: Call, paths: Paths, values: Mapping[str, Packed] | None = None) -> Any:
        """Run the forward.

        Args:
            call: What it is called with.
            paths: What it is spared.
            values: Per stream what is stored of the rows, in their order; None to run everything.

        Returns:
            The model's output.
        """
        call = call.trimmed() if paths.trim else call
        replay = paths.replay if values is not None else None
        skipped = frozenset(replay.skips if replay is not None else ())
        with self._packed(call, paths, skipped) as layers:
            if replay is not None and values is not None:
                packed = {path for chain in paths.chains for path in chain} if paths.packing is not None else set()
                entering = {
                    leaf: from_store(stream, values[stream.name], call.rows, paths, packs=leaf.path in packed)
                    for stream in replay.streams
                    for leaf in stream.leaves
                }
                layers.update(replay.entering(self._model, entering, layers))
            with interposed(layers):
                return self.forward(**call.inputs)

    def tap(self, call: Call, paths: Paths, *, train: Sequence[nn.Module] = ()) -> dict[str, Packed]:
        """Run the prefix, in eval mode and without autograd.

        Args:
            call: What the forward is called with.
            paths: What it is spared, replay included.
            train: Modules that are in train mode all the same.

        Returns:
            Per stream what is to be stored of the rows.

        Raises:
            NotReplayable: If a row's values have another shape than those of the rows before.
        """
        call = call.trimmed() if paths.trim else call
        found: dict[str, Packed] = {}

        def keep(stream: Stream, value: Tensor) -> None:
            found[stream.name] = to_store(stream, value, call.rows, paths)

        if paths.replay is None:
            return found
        with torch.no_grad(), in_eval(self._model, train), self._packed(call, paths, frozenset()) as layers:
            layers.update(paths.replay.leaving(self._model, keep, layers))
            with interposed(layers), suppress(Enough):
                self.forward(**call.without_labels().inputs)
        return found

    @contextmanager
    def _packed(self, call: Call, paths: Paths, skipped: frozenset[str]) -> Iterator[dict[nn.Module, Forward]]:
        forwards = products.forwards(self._linear_but(skipped)) if paths.products else {}
        live_fusions = [fusion for fusion in paths.fusions if not _is_inside(fusion.linear, skipped)]
        forwards |= fused.forwards(self._model, live_fusions, forwards)
        forwards |= self.tables.forwards() if paths.tables else {}
        if paths.packing is None or skipped.issuperset(path for chain in paths.chains for path in chain):
            yield forwards
            return
        packing = Packing(call.rows, paths.packing, paths.places)
        for number, chain in enumerate(paths.chains):
            live = [module_at(self._model, path) for path in chain if path not in skipped]
            if live:
                single = self._single(live[-1], call, paths) if chain is paths.chains[-1] else None
                forwards |= packing.forwards(live, number, single)
        with packing.attending():
            yield forwards
        self.places = frozenset(packing.seen)

    def _linear_but(self, skipped: frozenset[str]) -> list[nn.Module]:
        """The linear layers outside of some modules; one that is put in later is run as it is."""
        if skipped not in self._linear:
            inside = {inner for path in skipped for inner in self._model.get_submodule(path).modules()}
            self._linear[skipped] = [
                module for module in self._model.modules() if module not in inside and products.is_linear(module)
            ]
        return self._linear[skipped]

    def _single(self, layer: nn.Module, call: Call, paths: Paths) -> Single | None:
        if paths.single is None:
            return None
        return Single(paths.single, call.rows, keys_and_values(layer) if paths.folded else None)


def _is_inside(path: str, outer: Iterable[str]) -> bool:
    return any(path.startswith(f"{one}.") for one in outer)


@contextmanager
def in_eval(model: nn.Module, but: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Have all modules but some in eval mode for a while, without a word to those that are told of it."""
    before = [(module, module.training) for module in model.modules()]
    others = set(but)
    for module, _ in before:
        module.training = module in others
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
