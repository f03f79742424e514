"""Padding-free execution: the layers of a model run on the real tokens of a batch, end to end.

Just before the first layer (rows, length, width) becomes (1, slots, width), and so does what shares these
axes (position ids, rotary tables); behind the last one it is padded again, so that pooling and loss see what
they always see. Only attention has to know of the rows. Where a model attends through transformers' attention
interface, queries, keys and values are padded for it alone, in groups of similar length, or not even then, where torch
has a kernel for rows of different lengths; where it does not, the modules that mix tokens are. Masks stay as the model
made them, so that causal, local and biased attention work as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AttentionInterface

from frostline.compat.tensors import tree_flatten, tree_unflatten
from frostline.engine.dropout import is_dropout_off
from frostline.engine.packing import attention, varlen
from frostline.engine.packing.length_groups import CALL, Groups, can_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from frostline.engine.interpose import Forward
    from frostline.engine.packing.last_layer import Single
    from frostline.engine.token_layout import TokenLayout

PackingMode = Literal["attention", "modules"]
MODES: tuple[PackingMode, ...] = ("attention", "modules")

# The names of modules that mix tokens with each other, in the layers of the models of transformers.
_MIXES = re.compile(r"att|mixer|mamba|conv|ssm|fourier", re.IGNORECASE)
# The implementation that models of transformers attend through unless told otherwise.
_IMPLEMENTATION = "sdpa"
# Options of attention with values for all rows of a batch.
_OF_ALL_ROWS = ("position_bias", "cache")

_current: ContextVar[Packing | None] = ContextVar("packing", default=None)


class _Interface:
    """Puts attention within rows in the place of transformers' own while any thread needs it.

    What attends is one for all threads; which packing is in force, each thread knows by itself.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._needed = 0
        self._before: Callable[..., Any] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._needed:
                self._before = AttentionInterface()[_IMPLEMENTATION]  # type: ignore[no-untyped-call]
                AttentionInterface.register(_IMPLEMENTATION, _within_rows(self._before))
            self._needed += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._needed -= 1
            if not self._needed and self._before is not None:
                AttentionInterface.register(_IMPLEMENTATION, self._before)


_interface = _Interface()


class Packing:
    """One forward of a model with packed tokens.

    Which of the values that modules take and give have the axes of the batch is told by their shape in a trial, and
    remembered: in another batch, what has nothing to do with the text may be as long as it.

    Args:
        rows: The layout of the batch.
        mode: Whether the attention interface pads, or the modules that mix tokens.
        places: Where values have the axes of the batch; None in a trial, which tells it by their shape.

    Attributes:
        seen: Where a value of that shape was seen.
        calls: How often each chain was entered.
        loose: Whether a chain was entered with something else than the batch's tokens.
    """

    def __init__(self, rows: TokenLayout, mode: PackingMode, places: frozenset[str] | None = None) -> None:
        self.rows = rows
        self.mode = mode
        self.seen: set[str] = set()
        self.calls: Counter[int] = Counter()
        self.loose = False
        self._places = places
        self._single: Single | None = None
        # Both by id, which stays a tensor's own while it is held.
        self._packed: dict[int, tuple[Tensor, Tensor]] = {}
        self._reaches: dict[int, tuple[Tensor | None, varlen.Reach | None]] = {}
        self._groups: dict[int | None, Groups] = {}

    def forwards(
        self, layers: Sequence[nn.Module], chain: int, single: Single | None = None
    ) -> dict[nn.Module, Forward]:
        """Forwards with which a chain of layers, each taking what the one before gave out, runs packed.

        Args:
            layers: The chain.
            chain: Its number.
            single: How the last of them is run for one position of each row only; None to run it for all.
        """
        self._single = single or self._single
        self.calls[chain] = 0
        forwards = {layer: self._layer(layer.forward, chain) for layer in layers[:-1]}
        forwards |= {layer: self._last(layer.forward, chain, single) for layer in layers[-1:]}
        forwards |= {layers[0]: self._first(forwards[layers[0]], chain)}
        if self.mode == "modules":
            forwards |= {module: self._mixer(module.forward, chain) for layer in layers for module in mixers(layer)}
        return forwards

    @property
    def is_trial(self) -> bool:
        """Whether it is not yet known where values have the axes of the batch."""
        return self._places is None

    @property
    def single(self) -> Single | None:
        """What the last layer is run with, while it runs for one position of each row."""
        return self._single if self._single is not None and self._single.running else None

    @property
    def single_nodes(self) -> list[Any]:
        """The places in the graph of what the last layer gave out for one position."""
        return self._single.nodes if self._single is not None else []

    def reach(self, mask: Tensor | None, *, causal: bool) -> varlen.Reach | None:
        """How far tokens attend by a mask, which is the same tensor in many layers."""
        if id(mask) not in self._reaches:
            self._reaches[id(mask)] = (mask, varlen.reach_of(mask, self.rows, causal=causal))
        return self._reaches[id(mask)][1]

    def groups(self, heads: int | None) -> Groups:
        """The rows in groups of similar length for attention with so many heads; None for all in one.

        In a trial a call counts as nothing, so that rows of each length are a group of their own.
        """
        if heads not in self._groups:
            call = CALL / heads if heads is not None and self._places is not None else 0.0
            self._groups[heads] = Groups(self.rows, call if heads is not None else None)
        return self._groups[heads]

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Let transformers' attention interface attend within each row while this packing is in force."""
        token = _current.set(self)
        try:
            with _interface:
                yield
        finally:
            _current.reset(token)

    def _first(self, original: Forward, chain: int) -> Forward:
        """Note with what the first layer of a chain is called."""

        def forward(*arguments: Any, **options: Any) -> Any:
            self.calls[chain] += 1
            hidden = next(
                (leaf for leaf in tree_flatten((arguments, options))[0] if isinstance(leaf, torch.Tensor)), None
            )
            packed = (1, self.rows.slots)  # as what is replayed may enter
            if hidden is None or not (self._shares_axes(hidden) or tuple(hidden.shape[:2]) == packed):
                self.loose = True
            return original(*arguments, **options)

        return forward

    def _layer(self, original: Forward, chain: int) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            arguments, options = self._each(self._pack, f"{chain} in", (arguments, options))
            return original(*arguments, **options)

        return forward

    def _last(self, original: Forward, chain: int, single: Single | None) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            given = self._each(self._pack, f"{chain} in", (arguments, options))
            if single is not None:
                chosen = self._each(partial(self._choose, single), f"{chain} in", (arguments, options))
                return single.run(original, given, chosen)
            arguments, options = given
            return self._each(self._pad, f"{chain} out", original(*arguments, **options))

        return forward

    def _mixer(self, original: Forward, chain: int) -> Forward:
        def forward(*arguments: Any, **options: Any) -> Any:
            arguments, options = self._each(self._pad, f"{chain} mixer in", (arguments, options))
            return self._each(self._pack, f"{chain} mixer out", original(*arguments, **options))

        return forward

    def _each(self, change: Callable[[Tensor], Tensor | None], place: str, tree: Any) -> Any:
        """Change the tensors of a tree that have the axes of the batch."""
        leaves, spec = tree_flatten(tree)
        for index, leaf in enumerate(leaves):
            name = f"{place} {index}"
            if isinstance(leaf, torch.Tensor) and (self._places is None or name in self._places):
                changed = change(leaf)
                if changed is not None:
                    leaves[index] = changed
                    self.seen.add(name)
        return tree_unflatten(leaves, spec)

    def _pack(self, leaf: Tensor) -> Tensor | None:
        """(rows, length, ...) to (1, slots, ...); None for another shape."""
        if not self._shares_axes(leaf):
            return None
        if id(leaf) not in self._packed:
            whole = leaf.expand(self.rows.count, *leaf.shape[1:])
            self._packed[id(leaf)] = (leaf, self.rows.fill(self.rows.pack(whole)).unsqueeze(0))
        return self._packed[id(leaf)][1]

    def _is_packed(self, leaf: Tensor) -> bool:
        return leaf.dim() >= 2 and tuple(leaf.shape[:2]) == (1, self.rows.slots)

    def _pad(self, leaf: Tensor) -> Tensor | None:
        """(1, slots, ...) to (rows, length, ...); None for another shape."""
        if not self._is_packed(leaf):
            return None
        return self.rows.pad(self.rows.cut(leaf.squeeze(0)))

    def _choose(self, single: Single, leaf: Tensor) -> Tensor | None:
        """(rows, length, ...) or (1, slots, ...) to (rows, 1, ...); None for another shape."""
        if self._is_packed(leaf):
            return single.choose_packed(leaf)
        if not self._shares_axes(leaf):
            return None
        return single.choose(leaf.expand(self.rows.count, *leaf.shape[1:]))

    def _shares_axes(self, leaf: Tensor) -> bool:
        rows = self.rows
        if leaf.dim() == 2:  # position ids; a mask of two axes is read by the modules that pad
            return leaf.shape == (rows.count, rows.length) and leaf.dtype == torch.int64 and self.mode == "attention"
        # Four axes are those of a mask or of attention's weights.
        return leaf.dim() in {3, 5} and leaf.shape[1] == rows.length and leaf.shape[0] in {1, rows.count}


def mixers(layer: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules of a layer that mix tokens, told by their names."""
    for name, child in layer.named_children():
        if (
            _MIXES.search(name)
            and "norm" not in name.lower()
            and (any(True for _ in child.children()) or "fourier" in name)
        ):
            yield child
        else:
            yield from mixers(child)


def _within_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        packing = _current.get()
        if packing is None:
            return function(module, query, key, value, mask, **options)
        if is_dropout_off() and "dropout" in options:
            options["dropout"] = 0.0
        if packing.single is not None:
            return packing.single.attend(function, module, query, key, value, mask, options)
        rows = packing.rows
        if packing.mode != "attention" or query.shape[0] != 1 or query.shape[2] != rows.slots:
            return function(module, query, key, value, mask, **options)
        if varlen.takes(query, key, value, options):
            reach = packing.reach(mask, causal=options.get("is_causal", getattr(module, "is_causal", True)))
            if reach is not None:
                return varlen.attend(query, key, value, rows, reach, options.get("scaling")), None
        alike = key.shape[0] == 1 and key.shape[2] == value.shape[2] == rows.slots
        grouped = (
            alike
            and query.device.type == "cpu"
            and can_split(mask, rows)
            and all(options.get(name) is None for name in _OF_ALL_ROWS)
        )
        groups = packing.groups(query.shape[1] if grouped else None)
        parts = (_pad_heads(heads, rows, groups) for heads in (query, key, value))
        pieces = zip(*parts, groups.split(mask), strict=True)
        attend_all = attention.in_parts(function, always=packing.is_trial)
        outputs = [attend_all(module, *piece, **options) for piece in pieces]
        return rows.fill(groups.pack([output for output, _ in outputs])).unsqueeze(0), outputs[0][1]

    return attend


def _pad_heads(heads: Tensor, rows: TokenLayout, groups: Groups) -> tuple[Tensor, ...]:
    """(1, heads, slots, width) to (rows, heads, length, width) per group.

    Those of another text, padded already, stay as they are.
    """
    if heads.shape[0] != 1 or heads.shape[2] != rows.slots:
        return (heads,)
    return tuple(own.transpose(1, 2) for own in groups.pad(rows.cut(heads.squeeze(0).transpose(0, 1))))
