"""Replay: the model's own forward, with everything beneath the frost line skipped.

The frozen layers give back what they are given, and what was recorded when they did run is put in its
place where the first modules above the frost line take it. Which values those are is not known from the
architecture but found by experiment: the forward is run once as it is and once with the layers skipped,
and whatever then reaches a module above the frost line differently has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from frostline.base.modules import module_at
from frostline.compat.tensors import tree_flatten, tree_unflatten

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from frostline.engine.interpose import Forward
    from frostline.engine.replay.boundary import Route


OUTPUT = ""  # the path of the model itself, whose outputs may be stored as well


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
        per_row: How many entries of the axis of the rows belong to each row, as the choices of a question do.
    """

    name: str
    row_axis: int
    token_axis: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    leaves: tuple[Leaf, ...]
    per_row: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether it has the shape (rows, length, ...), which a layer that runs packed takes as (1, tokens, ...)."""
        return (self.row_axis, self.token_axis) == (0, 1)

    def rows_first(self, value: Tensor) -> Tensor:
        """The value as (rows, ...), or (rows, length, ...) where it has positions."""
        if self.per_row > 1:  # one after another in the next axis
            return value.reshape(-1, self.per_row * value.shape[1], *value.shape[2:])
        if self.token_axis is None:
            return value.movedim(self.row_axis, 0)
        return value.movedim((self.row_axis, self.token_axis), (0, 1))

    def as_taken(self, value: Tensor) -> Tensor:
        """What `rows_first` gave, as the leaves take it."""
        if self.per_row > 1:
            return value.reshape(len(value) * self.per_row, -1, *value.shape[2:])
        if self.token_axis is None:
            return value.movedim(0, self.row_axis)
        return value.movedim((0, 1), (self.row_axis, self.token_axis))


class Enough(Exception):  # noqa: N818 - it ends a forward early, and is no error
    """Everything that is wanted was recorded."""


@dataclass(frozen=True)
class Replay:
    """How a model is replayed at one boundary.

    Attributes:
        route: The boundary and what lies around it.
        streams: What is stored.
        skips: Per skipped module, how it answers.
        calls: How often the plain forward calls each module that is skipped, or that stored values enter.
        has_sizes: Whether skipped modules give out numbers, which are those of rows of the same sizes only.
    """

    route: Route
    streams: tuple[Stream, ...]
    skips: Mapping[str, Forward]
    calls: Mapping[str, int]
    has_sizes: bool = False

    @property
    def skipped(self) -> int:
        """How many modules of layers are skipped."""
        return len(set(self.skips).intersection(self.route.skipped))

    def entering(
        self,
        model: nn.Module,
        values: Mapping[Leaf, Tensor],
        forwards: Mapping[nn.Module, Forward],
        calls: Counter[str],
    ) -> dict[nn.Module, Forward]:
        """Forwards with which the model runs from stored values.

        Args:
            model: The model inside its wrappers.
            values: Per leaf, as it takes them.
            forwards: What stands in for forwards already; skipped modules go before, the rest is kept within.
            calls: Counts how often each module is called, to be compared with the plain forward's `calls`.
        """
        skips = {module_at(model, path): _counting(answer, path, calls) for path, answer in self.skips.items()}
        result = {**forwards, **skips}
        for path, leaves in self.by_module(all_leaves=True).items():
            if path == OUTPUT:
                continue
            module = module_at(model, path)
            inner = result.get(module, module.forward)
            inner = inner if path in self.skips else _counting(inner, path, calls)
            result[module] = _putting(inner, {leaf: values[leaf] for leaf in leaves})
        return result

    def given_out(self, output: Any) -> Iterator[tuple[Stream, Tensor]]:
        """The streams that are found in what the model gives out only."""
        streams = [stream for stream in self.streams if stream.leaves[0].path == OUTPUT]
        leaves = tree_flatten(output)[0] if streams else []
        for stream in streams:
            yield stream, leaves[stream.leaves[0].index]

    def completed(self, output: Any, values: Mapping[Leaf, Tensor]) -> Any:
        """What the model gives out, with stored values in place of what was not computed."""
        own = {leaf: value for leaf, value in values.items() if leaf.path == OUTPUT}
        return _changed(output, own, "output", 0) if own else output

    def by_module(self, *, all_leaves: bool) -> dict[str, dict[Leaf, Stream]]:
        """Per path of a module, the places where streams enter there: all of them, or the first of each stream."""
        found: dict[str, dict[Leaf, Stream]] = {}
        for stream in self.streams:
            for leaf in stream.leaves if all_leaves else stream.leaves[:1]:
                found.setdefault(leaf.path, {})[leaf] = stream
        return found


def leaving(
    model: nn.Module,
    taps: Sequence[tuple[Replay, Callable[[Stream, Tensor], None]]],
    forwards: Mapping[nn.Module, Forward],
) -> dict[nn.Module, Forward]:
    """Make forwards with which the model runs up to the last stream of all boundaries.

    The forward of the model then ends with `Enough`.

    Args:
        model: The model inside its wrappers.
        taps: Per boundary, how the model is replayed there, and what each of its streams is handed to.
        forwards: What stands in for forwards already; it is kept within.
    """
    result = dict(forwards)
    left = {(number, stream.name) for number, (replay, _) in enumerate(taps) for stream in replay.streams}

    def taken(number: int, stream: Stream, value: Tensor) -> None:
        taps[number][1](stream, value)
        left.discard((number, stream.name))
        if not left:
            raise Enough

    for number, (replay, _) in enumerate(taps):
        for path, leaves in replay.by_module(all_leaves=False).items():
            if path != OUTPUT:
                module = module_at(model, path)
                result[module] = _taking(result.get(module, module.forward), leaves, partial(taken, number))
    return result


def _counting(original: Forward, path: str, calls: Counter[str]) -> Forward:
    def forward(*arguments: Any, **options: Any) -> Any:
        calls[path] += 1
        return original(*arguments, **options)

    return forward


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
