"""Replay: the model's own forward, with everything beneath the frost line skipped.

The frozen layers give back what they are given, and what was recorded when they did run is put in its
place where the first modules above the frost line take it. Which values those are is not known from the
architecture but found by experiment: the forward is run once as it is and once with the layers skipped,
and whatever then reaches a module above the frost line differently has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from frostline.engine.interpose import interposed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn
    from torch.utils._pytree import TreeSpec

    from frostline.engine.interpose import Forward
    from frostline.engine.route import Route


class NotReplayable(Exception):  # noqa: N818 - it is no error of the user's, but a reason
    """Why a model cannot be replayed at a boundary, in words."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value among the arguments, or the results, of one call of a module.

    Attributes:
        path: Of the module.
        side: Whether it goes in or comes out.
        call: Which call of the module in one forward, from 0.
        index: Which one, when arguments and keywords (or results) are flattened.
    """

    path: str
    side: Literal["input", "output"]
    call: int
    index: int


@dataclass(frozen=True, slots=True)
class Stream:
    """One tensor that crosses the frost line.

    Attributes:
        name: Where it enters first.
        row_axis: The axis of the rows.
        token_axis: The axis of the positions; None where there is none.
        shape: The other axes.
        dtype: Of its values.
        leaves: All places where it enters.
    """

    name: str
    row_axis: int
    token_axis: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    leaves: tuple[Leaf, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it has the shape (rows, length, ...), which a layer that runs packed takes as (1, tokens, ...)."""
        return (self.row_axis, self.token_axis) == (0, 1)

    def rows_first(self, value: Tensor) -> Tensor:
        """The value as (rows, ...), or (rows, length, ...) where it has positions."""
        if self.token_axis is None:
            return value.movedim(self.row_axis, 0)
        return value.movedim((self.row_axis, self.token_axis), (0, 1))

    def as_taken(self, value: Tensor) -> Tensor:
        """What `rows_first` gave, as the leaves take it."""
        if self.token_axis is None:
            return value.movedim(0, self.row_axis)
        return value.movedim((0, 1), (self.row_axis, self.token_axis))


@dataclass(slots=True)
class _Record:
    """What went into and came out of the calls of a module."""

    inputs: list[list[Any]] = field(default_factory=list)
    outputs: list[list[Any]] = field(default_factory=list)
    specs: list[TreeSpec] = field(default_factory=list)
    input_specs: list[TreeSpec] = field(default_factory=list)


class Enough(Exception):  # noqa: N818 - it ends a forward early, and is no error
    """Everything that is wanted was recorded."""


@dataclass(frozen=True)
class Replay:
    """How a model is replayed at one boundary.

    Attributes:
        route: The boundary and what lies around it.
        streams: What is stored.
        skips: Per skipped module, how it answers.
    """

    route: Route
    streams: tuple[Stream, ...]
    skips: Mapping[str, Forward]

    @property
    def skipped(self) -> int:
        """How many modules of layers are skipped."""
        return len(set(self.skips).intersection(self.route.skipped))

    def entering(
        self, model: nn.Module, values: Mapping[Leaf, Tensor], forwards: Mapping[nn.Module, Forward]
    ) -> dict[nn.Module, Forward]:
        """Forwards with which the model runs from stored values.

        Args:
            model: The model inside its wrappers.
            values: Per leaf, as it takes them.
            forwards: What stands in for forwards already; skipped modules go before, the rest is kept within.
        """
        result = {**forwards, **{model.get_submodule(path): answer for path, answer in self.skips.items()}}
        for path, leaves in self._by_module(all_leaves=True).items():
            module = model.get_submodule(path)
            inner = result.get(module, module.forward)
            result[module] = _putting(inner, {leaf: values[leaf] for leaf in leaves})
        return result

    def leaving(
        self, model: nn.Module, keep: Callable[[Stream, Tensor], None], forwards: Mapping[nn.Module, Forward]
    ) -> dict[nn.Module, Forward]:
        """Forwards with which the model runs up to the last stream, and every stream is handed to `keep`.

        The forward of the model then ends with `Enough`.
        """
        result = dict(forwards)
        left = {stream.name for stream in self.streams}

        def taken(stream: Stream, value: Tensor) -> None:
            keep(stream, value)
            left.discard(stream.name)
            if not left:
                raise Enough

        for path, leaves in self._by_module(all_leaves=False).items():
            module = model.get_submodule(path)
            result[module] = _taking(result.get(module, module.forward), leaves, taken)
        return result

    def _by_module(self, *, all_leaves: bool) -> dict[str, dict[Leaf, Stream]]:
        found: dict[str, dict[Leaf, Stream]] = {}
        for stream in self.streams:
            for leaf in stream.leaves if all_leaves else stream.leaves[:1]:
                found.setdefault(leaf.path, {})[leaf] = stream
        return found


def _putting(original: Forward, values: Mapping[Leaf, Tensor]) -> Forward:
    calls = count()

    def forward(*arguments: Any, **options: Any) -> Any:
        call = next(calls)
        arguments, options = _changed((arguments, options), values, "input", call)
        return _changed(original(*arguments, **options), values, "output", call)

    return forward


def _changed(tree: Any, values: Mapping[Leaf, Tensor], side: str, call: int) -> Any:
    own = {leaf.index: value for leaf, value in values.items() if leaf.side == side and leaf.call == call}
    if not own:
        return tree
    leaves, spec = tree_flatten(tree)
    return tree_unflatten([own.get(index, leaf) for index, leaf in enumerate(leaves)], spec)


def _taking(original: Forward, leaves: Mapping[Leaf, Stream], keep: Callable[[Stream, Tensor], None]) -> Forward:
    calls = count()

    def take(tree: Any, side: str, call: int) -> None:
        own = [leaf for leaf in leaves if leaf.side == side and leaf.call == call]
        values = tree_flatten(tree)[0] if own else []
        for leaf in own:
            keep(leaves[leaf], values[leaf.index])

    def forward(*arguments: Any, **options: Any) -> Any:
        call = next(calls)
        take((arguments, options), "input", call)
        output = original(*arguments, **options)
        take(output, "output", call)
        return output

    return forward


def find_replay(
    model: nn.Module, forward: Forward, route: Route, batch: Mapping[str, Any], shape: tuple[int, int]
) -> Replay:
    """Find out by experiment what has to be stored to replay a model.

    Args:
        model: The model inside its wrappers, its prefix in eval mode.
        forward: Its forward.
        route: The boundary.
        batch: Keyword arguments of the model's forward.
        shape: Rows and positions of the batch.

    Raises:
        NotReplayable: If it cannot be replayed there.
    """
    reasons = []
    record = _record(model, forward, route, batch)
    for attempt in ({"tables": True, "side": False}, {"tables": False, "side": False}, {"tables": False, "side": True}):
        try:
            return _attempt(model, forward, route, batch, shape, record, **attempt)
        except NotReplayable as reason:
            reasons.append(str(reason))
        except Exception as error:  # noqa: BLE001 - the model's own code, given what it does not expect
            reasons.append(f"{type(error).__name__}: {error}")
    raise NotReplayable(reasons[-1])


def _record(model: nn.Module, forward: Forward, route: Route, batch: Mapping[str, Any]) -> dict[str, _Record]:
    paths = dict.fromkeys((*route.tables, *route.skipped, *(site.path for site in route.sites)))
    records = {path: _Record() for path in paths}

    def recording(path: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            record = records[path]
            leaves, spec = tree_flatten((arguments, options))
            record.inputs.append([_kept(leaf) for leaf in leaves])
            record.input_specs.append(spec)
            output = original(*arguments, **options)
            leaves, spec = tree_flatten(output)
            record.outputs.append([_kept(leaf) for leaf in leaves])
            record.specs.append(spec)
            return output

        return forward

    modules = {model.get_submodule(path): path for path in paths}
    with torch.no_grad(), interposed({m: recording(path, m.forward) for m, path in modules.items()}):
        logits = forward(**batch).logits
    records[""] = _Record(outputs=[[logits.clone()]])
    return records


def _kept(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def _attempt(
    model: nn.Module,
    run: Forward,
    route: Route,
    batch: Mapping[str, Any],
    shape: tuple[int, int],
    records: dict[str, _Record],
    *,
    tables: bool,
    side: bool,
) -> Replay:
    skips: dict[str, Forward] = {}
    if tables:
        for path in route.tables:
            answer = _blank(records[path], shape)
            if answer is not None:
                skips[path] = answer
    for path in route.skipped:
        answer = _pass_through(records[path], keep_side_outputs=side)
        if answer is not None:
            skips[path] = answer
    found: dict[int, tuple[Tensor, list[Leaf]]] = {}
    streams: list[tuple[Tensor, list[Leaf]]] = []

    def settle(path: str, side_: str, call: int, index: int, want: Any, have: Any) -> Any:
        if not isinstance(want, torch.Tensor):
            if type(have) is not type(want) or (isinstance(want, int | float | str) and have != want):
                raise NotReplayable(f"{path} is called with other arguments when layers are skipped")
            return have
        if isinstance(have, torch.Tensor) and have.shape == want.shape and torch.equal(have, want):
            return have
        leaf = Leaf(path, side_, call, index)
        for value, leaves in streams:
            if value.shape == want.shape and torch.equal(value, want):
                leaves.append(leaf)
                break
        else:
            streams.append((want, [leaf]))
        return want.clone()

    calls: dict[tuple[str, str], int] = {}

    def entering(path: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            call = calls[path, "input"] = calls.get((path, "input"), -1) + 1
            record = records[path]
            leaves, spec = tree_flatten((arguments, options))
            if call >= len(record.inputs) or spec != record.input_specs[call]:
                raise NotReplayable(f"{path} is called in another way when layers are skipped")
            leaves = [
                settle(path, "input", call, index, want, have)
                for index, (want, have) in enumerate(zip(record.inputs[call], leaves, strict=True))
            ]
            arguments, options = tree_unflatten(leaves, spec)
            return original(*arguments, **options)

        return forward

    def leaving(path: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            call = calls[path, "output"] = calls.get((path, "output"), -1) + 1
            leaves, spec = tree_flatten(original(*arguments, **options))
            leaves = [
                settle(path, "output", call, index, want, have)
                for index, (want, have) in enumerate(zip(records[path].outputs[call], leaves, strict=True))
            ]
            return tree_unflatten(leaves, spec)

        return forward

    forwards: dict[nn.Module, Forward] = {model.get_submodule(path): answer for path, answer in skips.items()}
    for site in route.sites:
        module = model.get_submodule(site.path)
        wrap = entering if site.side == "input" else leaving
        forwards[module] = wrap(site.path, forwards.get(module, module.forward))
    with torch.no_grad(), interposed(forwards):
        logits = run(**batch).logits
    want = records[""].outputs[0][0]
    if logits.shape != want.shape or not torch.allclose(logits, want, rtol=1e-5, atol=1e-5):
        raise NotReplayable("what lies beneath reaches the logits on another way as well")
    return Replay(route, tuple(_stream(value, leaves, shape) for value, leaves in streams), skips)


def _stream(value: Tensor, leaves: Sequence[Leaf], shape: tuple[int, int]) -> Stream:
    first = leaves[0]
    name = f"{first.path} {first.side} {first.call}.{first.index}"
    rows, length = shape
    axes = range(value.dim())
    # Most models put rows first and positions next; some turn these axes round, or put channels between them.
    pairs = [(row, token) for row in axes for token in axes if (value.shape[row], value.shape[token]) == (rows, length)]
    pairs = [(row, token) for row, token in pairs if row != token]
    if pairs:
        row_axis, token_axis = min(pairs, key=lambda pair: (pair[0] + pair[1], pair[0]))
        rest = [size for axis, size in enumerate(value.shape) if axis not in {row_axis, token_axis}]
        return Stream(name, row_axis, token_axis, tuple(rest), value.dtype, tuple(leaves))
    if value.dim() and value.shape[0] == rows:
        return Stream(name, 0, None, tuple(value.shape[1:]), value.dtype, tuple(leaves))
    raise NotReplayable(f"{first.path} takes a tensor of shape {tuple(value.shape)} that belongs to no row")


def _blank(record: _Record, shape: tuple[int, int]) -> Forward | None:
    """Answer with zeros that take no memory; None where embeddings give out something else than one per token."""
    if len(record.outputs) != 1 or len(record.outputs[0]) != 1:
        return None
    output = record.outputs[0][0]
    if not isinstance(output, torch.Tensor) or output.dim() != 3 or output.shape[:2] != shape:
        return None
    zero, width = output.new_zeros(1), output.shape[2]

    def answer(*arguments: Any, **options: Any) -> Any:
        leaves = tree_flatten((arguments, options))[0]
        given = next(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        return zero.expand(*given.shape[:2], width)

    return answer


def _pass_through(record: _Record, *, keep_side_outputs: bool) -> Forward | None:
    """Answer with what was given; None where a layer gives out more than what can be told from what it is given."""
    plans = [
        [_source(leaf, inputs, keep_side_outputs=keep_side_outputs) for leaf in outputs]
        for inputs, outputs in zip(record.inputs, record.outputs, strict=True)
    ]
    same = all(plan == plans[0] for plan in plans) and all(spec == record.specs[0] for spec in record.specs)
    if not plans or not same or any(source is _NOWHERE for source in plans[0]):
        return None

    def answer(*arguments: Any, **options: Any) -> Any:
        given = tree_flatten((arguments, options))[0]
        leaves = [given[source] if isinstance(source, int) else None for source in plans[0]]
        return tree_unflatten(leaves, record.specs[0])

    return answer


_NOWHERE = "nowhere"


def _source(leaf: Any, inputs: list[Any], *, keep_side_outputs: bool) -> int | str | None:
    """The place of the input that a skipped layer gives out in place of a result; None for nothing."""
    if not isinstance(leaf, torch.Tensor):
        return None if leaf is None else _NOWHERE
    tensors = {place: given for place, given in enumerate(inputs) if isinstance(given, torch.Tensor)}
    for place, given in tensors.items():  # what a layer hands on: a bias that the first one has made
        if given.shape == leaf.shape and torch.equal(given, leaf):
            return place
    first = next(iter(tensors), None)
    if first is not None and (tensors[first].shape, tensors[first].dtype) == (leaf.shape, leaf.dtype):
        return first
    return _NOWHERE if keep_side_outputs else None
