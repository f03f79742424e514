"""Finding out by experiment what has to be stored to replay a model.

The forward is run once as it is, and once with the frozen layers skipped. Whatever then reaches a module above the
frost line differently has to be stored, and is put in its place at once, so that what follows is seen as it will be.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from frostline.compat.tensors import tree_flatten, tree_structure, tree_unflatten
from frostline.engine.interpose import interposed
from frostline.engine.replay.replay import OUTPUT, Leaf, NotReplayable, Replay, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from frostline.compat.tensors import TreeSpec
    from frostline.engine.interpose import Forward
    from frostline.engine.replay.boundary import Route

_NOWHERE = "nowhere"
_ONE_ROW = "one row"
_LEAVES = frozenset({torch.Tensor, torch.nn.Parameter, type(None), bool, int, float, str})


@dataclass(slots=True)
class _Record:
    """What went into and came out of the calls of one module, flattened."""

    inputs: list[list[Any]] = field(default_factory=list)
    input_specs: list[TreeSpec] = field(default_factory=list)
    outputs: list[list[Any]] = field(default_factory=list)
    output_specs: list[TreeSpec] = field(default_factory=list)


def find_replay(
    model: nn.Module,
    run: Forward,
    route: Route,
    shape: tuple[int, int],
    is_same: Callable[[Callable[[], Any]], bool],
    frozen_outputs: frozenset[int] = frozenset(),
    *,
    keeps_sizes: bool = False,
) -> Replay:
    """Find out by experiment what has to be stored to replay a model.

    Args:
        model: The model inside its wrappers.
        run: Runs its forward on the batch.
        route: The boundary.
        shape: Rows and positions of the batch.
        is_same: Tells whether a way to run the model gives the outputs of the plain forward; each run has the same
            random numbers and state, and dropout at 0.
        frozen_outputs: Which of its outputs, flattened, nothing that trains has a part in, so that they can be stored.
        keeps_sizes: Whether other batches may be asked to have rows of the same sizes, for which a skipped layer gives
            out the same numbers, such as the height and width of what it has shrunk.

    Raises:
        NotReplayable: If it cannot be replayed there.
    """
    records = _record(model, run, route, is_same)
    reason = ""
    second_best: Replay | None = None
    # Embeddings are skipped where nothing but the first layer takes what they give; layers that give out more than
    # their hidden states are first taken to do so for nobody. If that is wrong they are left running: for one row only
    # where it is the same for all rows, as a bias of positions is.
    for skip_tables, skip_side_outputs in ((True, True), (False, True), (True, False), (False, False)):
        experiment = _Experiment(
            *(model, route, records, shape),
            skip_tables=skip_tables,
            skip_side_outputs=skip_side_outputs,
            keeps_sizes=keeps_sizes,
        )
        try:
            found = experiment.run(run, is_same, frozen_outputs)
        except NotReplayable as refusal:
            reason = str(refusal)
            continue
        # A bias of positions, as wide as the text is long, can have as many heads as there are rows.
        if not any(shape[1] in stream.shape for stream in found.streams):
            return found
        second_best = second_best or found
    if second_best is None:
        raise NotReplayable(reason)
    return second_best


def _record(
    model: nn.Module, run: Forward, route: Route, is_same: Callable[[Callable[[], Any]], bool]
) -> dict[str, _Record]:
    """Run the forward as it is: what the modules around the boundary took and gave."""
    paths = dict.fromkeys((*route.tables, *route.skipped, *(site.path for site in route.sites)))
    records = {path: _Record() for path in paths}

    def recording(record: _Record, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            leaves, spec = tree_flatten((arguments, options))
            record.inputs.append([_kept(leaf) for leaf in leaves])
            record.input_specs.append(spec)
            output = original(*arguments, **options)
            leaves, spec = tree_flatten(output)
            record.outputs.append([_kept(leaf) for leaf in leaves])
            record.output_specs.append(spec)
            return output

        return forward

    forwards = {}
    for path, record in records.items():
        module = model.get_submodule(path)
        forwards[module] = recording(record, module.forward)
    whole = records[OUTPUT] = _Record()

    def recorded() -> Any:
        output = run()
        leaves, spec = tree_flatten(output)
        whole.outputs.append([_kept(leaf) for leaf in leaves])
        whole.output_specs.append(spec)
        return output

    with interposed(forwards):
        if not is_same(recorded):
            raise NotReplayable("its forward gives out something else each time")
    return records


def _kept(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


class _Experiment:
    """One forward with layers skipped."""

    def __init__(
        self,
        model: nn.Module,
        route: Route,
        records: Mapping[str, _Record],
        shape: tuple[int, int],
        *,
        skip_tables: bool,
        skip_side_outputs: bool,
        keeps_sizes: bool,
    ) -> None:
        self._model = model
        self._route = route
        self._records = records
        self._shape = shape
        self._calls: Counter[tuple[str, str]] = Counter()
        self._found: list[tuple[Tensor, list[Leaf]]] = []
        answers = {path: _blank(records[path], shape) for path in route.tables if skip_tables}
        sources = {
            path: _sources(records[path], shape[0], side_outputs=skip_side_outputs, keeps_sizes=keeps_sizes)
            for path in route.skipped
        }
        self._has_sizes = any(isinstance(source, _Number) for found in sources.values() for source in found or ())
        answers |= {
            path: _pass_through(model.get_submodule(path), records[path], found, shape[0]) if found else None
            for path, found in sources.items()
        }
        self._skips: dict[str, Forward] = {path: answer for path, answer in answers.items() if answer is not None}

    def run(self, run: Forward, is_same: Callable[[Callable[[], Any]], bool], frozen_outputs: frozenset[int]) -> Replay:
        forwards = {self._model.get_submodule(path): answer for path, answer in self._skips.items()}
        for site in self._route.sites:
            module = self._model.get_submodule(site.path)
            settle = self._entering if site.side == "input" else self._leaving
            forwards[module] = settle(site.path, forwards.get(module, module.forward))
        failures: list[Exception] = []

        def tried() -> Any:
            try:
                return self._settled(OUTPUT, "output", run(), only=frozen_outputs)
            except Exception as error:
                failures.append(error)
                raise

        with interposed(forwards):
            is_right = is_same(tried)
        if failures:
            known = isinstance(failures[0], NotReplayable)
            how = f"{type(failures[0]).__name__}: {failures[0]}"
            raise failures[0] if known else NotReplayable(f"its code fails: {how}")
        if not is_right:
            raise NotReplayable("what lies beneath the frost line reaches the outputs on another way as well")
        streams = tuple(_stream(value, leaves, self._shape) for value, leaves in self._found)
        modules = {*self._skips, *(leaf.path for stream in streams for leaf in stream.leaves)} - {OUTPUT}
        calls = {path: len(self._records[path].inputs) for path in modules}
        return Replay(self._route, streams, self._skips, calls, has_sizes=self._has_sizes)

    def _entering(self, path: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            arguments, options = self._settled(path, "input", (arguments, options))
            return original(*arguments, **options)

        return forward

    def _leaving(self, path: str, original: Forward) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            return self._settled(path, "output", original(*arguments, **options))

        return forward

    def _settled(
        self, path: str, side: Literal["input", "output"], tree: Any, *, only: frozenset[int] | None = None
    ) -> Any:
        """What a module takes or gives, with what differs from the forward as it is put right, all or some of it."""
        call = self._calls[path, side]
        self._calls[path, side] += 1
        record = self._records[path]
        values, specs = (
            (record.inputs, record.input_specs) if side == "input" else (record.outputs, record.output_specs)
        )
        leaves, spec = tree_flatten(tree)
        if call >= len(specs) or spec != specs[call]:
            raise NotReplayable(f"{path} is called in another way when layers are skipped")
        pairs = enumerate(zip(values[call], leaves, strict=True))
        settled = [
            self._right(Leaf(path, side, call, place), *pair) if only is None or place in only else pair[1]
            for place, pair in pairs
        ]
        return tree_unflatten(settled, spec)

    def _right(self, leaf: Leaf, wanted: Any, given: Any) -> Any:
        if not isinstance(wanted, torch.Tensor):
            if type(given) is not type(wanted) or (isinstance(wanted, int | float | str) and given != wanted):
                raise NotReplayable(f"{leaf.path} is called with other arguments when layers are skipped")
            return given
        if _same(given, wanted):
            return given
        for value, leaves in self._found:
            if _same(value, wanted):
                leaves.append(leaf)
                break
        else:
            self._found.append((wanted, [leaf]))
        return wanted.clone()


def _same(one: Any, other: Tensor) -> bool:
    return (
        isinstance(one, torch.Tensor)
        and (one.shape, one.dtype) == (other.shape, other.dtype)
        and torch.equal(one, other)
    )


def _stream(value: Tensor, leaves: Sequence[Leaf], shape: tuple[int, int]) -> Stream:
    first = leaves[0]
    name = f"{first.path} {first.side} {first.call}.{first.index}"
    axes = range(value.dim())
    # Most models put rows first and positions next; some turn these axes round, or put channels between them.
    pairs = [
        (row, token)
        for row in axes
        for token in axes
        if row != token and (value.shape[row], value.shape[token]) == shape
    ]
    if pairs:
        row_axis, token_axis = min(pairs, key=lambda pair: (sum(pair), pair[0]))
        rest = [size for axis, size in enumerate(value.shape) if axis not in {row_axis, token_axis}]
        return Stream(name, row_axis, token_axis, tuple(rest), value.dtype, tuple(leaves))
    if value.dim() and value.shape[0] == shape[0]:
        return Stream(name, 0, None, tuple(value.shape[1:]), value.dtype, tuple(leaves))
    if value.dim() > 1 and value.shape[0] and value.shape[0] % shape[0] == 0:
        each = value.shape[0] // shape[0]
        return Stream(name, 0, None, tuple(value.shape[1:]), value.dtype, tuple(leaves), each)
    raise NotReplayable(f"{first.path} takes a tensor of shape {tuple(value.shape)} that belongs to no row")


def _blank(record: _Record, shape: tuple[int, int]) -> Forward | None:
    """Answer with zeros that take no memory; None where a table gives out something else than one vector per token."""
    if len(record.outputs) != 1 or len(record.outputs[0]) != 1:
        return None
    output = record.outputs[0][0]
    if not isinstance(output, torch.Tensor) or output.dim() != 3 or output.shape[:2] != shape:
        return None
    zero, width = output.new_zeros(1), output.shape[2]

    def answer(*arguments: Any, **options: Any) -> Any:
        given = next(leaf for leaf in _leaves(arguments, options) if isinstance(leaf, torch.Tensor))
        return zero.expand(*given.shape[:2], width)

    return answer


def _leaves(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> list[Any]:
    """What a module is given, flattened: in every step, so without a walk where nothing is nested."""
    given = [*arguments, *options.values()]
    return given if _LEAVES.issuperset(map(type, given)) else tree_flatten((arguments, options))[0]


@dataclass(frozen=True, slots=True)
class _Number:
    """A number or a name that a layer gives out."""

    value: float | str


def _sources(
    record: _Record, rows: int, *, side_outputs: bool, keeps_sizes: bool
) -> list[int | str | _Number | None] | None:
    """What a skipped layer can give out for each of its results; None where it cannot be skipped.

    Args:
        record: What it took and gave.
        rows: Of the batch.
        side_outputs: Whether whatever else than its hidden states it gives out may be left out.
        keeps_sizes: Whether it may give out the same numbers each time.
    """
    calls = zip(record.inputs, record.outputs, strict=True)
    sources = [
        [_source(leaf, inputs, rows, side_outputs=side_outputs, keeps_sizes=keeps_sizes) for leaf in outputs]
        for inputs, outputs in calls
    ]
    specs = record.output_specs
    if not sources or any(own != sources[0] for own in sources) or any(spec != specs[0] for spec in specs):
        return None
    return None if _NOWHERE in sources[0] else sources[0]


def _pass_through(
    module: nn.Module, record: _Record, sources: Sequence[int | str | _Number | None], rows: int
) -> Forward:
    """Answer with what was given.

    Args:
        module: The layer.
        record: What it took and gave.
        sources: What it gives out for each of its results.
        rows: Of the batch.
    """
    spec = record.output_specs[0]
    original: Forward = module.forward
    of_rows = {
        place
        for place, given in enumerate(record.inputs[0])
        if isinstance(given, torch.Tensor) and given.shape[:1] == (rows,)
    }

    def answer(*arguments: Any, **options: Any) -> Any:
        given = _leaves(arguments, options)
        made = []
        if _ONE_ROW in sources:
            first = [leaf[:1] if place in of_rows else leaf for place, leaf in enumerate(given)]
            arguments, options = tree_unflatten(first, tree_structure((arguments, options)))
            with torch.no_grad():
                made = tree_flatten(original(*arguments, **options))[0]
        leaves: list[Any] = []
        for place, source in enumerate(sources):
            if isinstance(source, int):
                leaves.append(given[source])
            elif isinstance(source, _Number):
                leaves.append(source.value)
            else:
                leaves.append(made[place] if source == _ONE_ROW else None)
        return tree_unflatten(leaves, spec)

    return answer


def _source(
    leaf: Any, inputs: Sequence[Any], rows: int, *, side_outputs: bool, keeps_sizes: bool
) -> int | str | _Number | None:
    """The place of the input that a skipped layer gives out for a result; None for nothing."""
    if not isinstance(leaf, torch.Tensor):
        if keeps_sizes and isinstance(leaf, int | float | str):
            return _Number(leaf)
        return None if leaf is None else _NOWHERE
    tensors = {place: given for place, given in enumerate(inputs) if isinstance(given, torch.Tensor)}
    for place, given in tensors.items():  # what a layer hands on, such as a bias that the first one has made
        if _same(given, leaf):
            return place
    first = next(iter(tensors), None)
    if first is not None and (tensors[first].shape, tensors[first].dtype) == (leaf.shape, leaf.dtype):
        return first
    if side_outputs:
        return None
    return _ONE_ROW if leaf.shape[:1] == (1,) and rows > 1 else _NOWHERE
