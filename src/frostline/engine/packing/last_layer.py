"""The last layer for one position of each row only.

Where the head reads one position (the first token, the last one), the last layer needs queries, attention's output and
its feed-forward network for that position alone, but keys and values of all. So it runs twice: with all tokens as far
as its attention, of which the keys and values are kept; then with that one position, and those. Where keys and values
are plain linear maps of what the layer is given, the first run is spared: for one query q and hidden states h, the
scores q W_k h are those of the one vector q W_k with all h, and the attended value is W_v times the attended h, by
associativity. Both are exact but for rounding, forward and backward.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from transformers.cache_utils import Cache

from frostline.compat.tensors import tree_map
from frostline.engine.interpose import interposed
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.selection import marked

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from frostline.engine.interpose import Forward
    from frostline.engine.token_layout import TokenLayout

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

Position = Literal["first token", "last token"]

_KEYS_AND_VALUES = re.compile(r"k|v|key|value|[kv]_(proj|lin)")


def position_named(places: Tensor, rows: TokenLayout) -> Position | None:
    """Name one position of each row; None where it is not one of those that have a name.

    Args:
        places: The place of that position in each row, int64, (rows,).
        rows: The layout of the batch.
    """
    for position in ("first token", "last token"):
        if torch.equal(places_of(position, rows).cpu(), places):
            return position
    return None


def places_of(position: Position, rows: TokenLayout) -> Tensor:
    """The place of that position in each row, int64, (rows,)."""
    if position == "first token":
        return torch.zeros(rows.count, dtype=torch.int64, device=rows.mask.device)
    steps = torch.arange(rows.length, device=rows.mask.device)
    return (steps * rows.mask).argmax(dim=1)


def keys_and_values(layer: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The projections of a layer whose outputs are its keys and its values, told by their names; None without them."""
    names = [path.rpartition(".")[2] for path, _ in layer.named_modules()]
    found = [pair for pair in zip(names, layer.modules(), strict=True) if _KEYS_AND_VALUES.fullmatch(pair[0])]
    found.sort(key=lambda pair: pair[0])
    if [name[0] for name, _ in found] != ["k", "v"]:
        return None
    return found[0][1], found[1][1]


class _Reached(Exception):  # noqa: N818 - it ends the run of a layer early, and is no error
    """The layer's attention was reached."""


class Single:
    """One run of the last layer for one position of each row.

    Args:
        position: Which one.
        rows: The layout of the batch.
        folded: The modules that make the layer's keys and its values, in this order, if they are plain linear maps of
            what it is given, to be folded into query and attended value; None to compute keys and values.
        marks: Whether what it gives out gets a place in the graph, by which it can be told what is read of it; what
            follows is then recorded by autograd in any case.

    Attributes:
        running: Whether that layer is running right now.
        nodes: The places in the graph.
    """

    def __init__(
        self, position: Position, rows: TokenLayout, folded: tuple[nn.Module, nn.Module] | None, *, marks: bool = False
    ) -> None:
        self._rows = rows
        self._folded = folded
        self._hidden: Tensor | None = None  # (rows, length, width)
        self._keys_and_values: tuple[Tensor, Tensor] | None = None  # (rows, heads, length, width) each
        self._seeks = self._attended = False
        self._each = torch.arange(rows.count, device=rows.mask.device)
        self._places = places_of(position, rows)
        self._packed_places = rows.mask.reshape(-1).cumsum(0)[self._each * rows.length + self._places] - 1
        self._marks = marks
        self.running = False
        self.nodes: list[Any] = []

    def choose(self, padded: Tensor) -> Tensor:
        """(rows, length, ...) to (rows, 1, ...)."""
        return padded[self._each, self._places].unsqueeze(1)

    def choose_packed(self, packed: Tensor) -> Tensor:
        """(1, slots, ...) to (rows, 1, ...)."""
        return packed.squeeze(0)[self._packed_places].unsqueeze(1)

    def run(self, original: Forward, given: Arguments, chosen: Arguments) -> Any:
        """Run the layer; give out what it gives padded, (rows, length, ...).

        Args:
            original: Its forward.
            given: What it is given for all tokens: packed hidden states, (1, slots, width), first.
            chosen: The same for that position of each row, (rows, 1, ...).

        Raises:
            NotReplayable: If it attends in a way that is not known.
        """
        given, chosen = _without_cache(given), _without_cache(chosen)
        forwards: dict[nn.Module, Forward] = {}
        self.running, self._attended = True, False
        try:
            if self._folded is None:
                self._seek(original, given)
            else:
                self._hidden = self._rows.pad(self._rows.cut(given[0][0].squeeze(0)))
                forwards = {module: self._left_out(module, self._hidden) for module in self._folded}
            with interposed(forwards):
                output = original(*chosen[0], **chosen[1])
        finally:
            self.running = False
            self._hidden = self._keys_and_values = None
        if not self._attended:
            raise NotReplayable("its last layer does not attend through transformers' interface")
        return tree_map(self._spread, output)

    def _seek(self, original: Forward, given: Arguments) -> None:
        """Run the layer up to its attention, and keep the keys and values."""
        self._seeks = True
        try:
            with suppress(_Reached):
                original(*given[0], **given[1])
        finally:
            self._seeks = False

    def attend(
        self,
        function: Callable[..., Any],
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> Any:
        """Attend from one position to all: query (rows, heads, 1, width), keys and values those of all tokens."""
        if self._seeks:
            self._keys_and_values = self._padded(key), self._padded(value)
            raise _Reached
        if self._attended:
            raise NotReplayable("its last layer attends more than once")
        self._attended = True
        mask = self._seen(mask, module, options)
        if self._hidden is not None:
            return self._attend_folded(self._hidden, query, mask, options), None
        if self._keys_and_values is None:
            raise NotReplayable("its last layer attends in another way for one position")
        key, value = self._keys_and_values
        return function(module, query, key, value, mask, **options)

    def _padded(self, heads: Tensor) -> Tensor:
        """(1, heads, slots, width) to (rows, heads, length, width)."""
        if heads.shape[0] != 1 or heads.shape[2] != self._rows.slots:
            raise NotReplayable("its last layer attends to something else than the text")
        return self._rows.pad(self._rows.cut(heads.squeeze(0).transpose(0, 1))).transpose(1, 2)

    def _seen(self, mask: Tensor | None, module: nn.Module, options: dict[str, Any]) -> Tensor | None:
        """What the one position attends to: (rows, heads or 1, 1, length)."""
        if mask is not None:  # (rows or 1, heads or 1, length or 1, length)
            whole = mask.expand(self._rows.count, -1, self._rows.length, -1)
            return whole[self._each, :, self._places].unsqueeze(2)
        causal = options.get("is_causal")
        if causal is False or (causal is None and not getattr(module, "is_causal", True)):
            return None
        before = torch.arange(self._rows.length, device=self._places.device) <= self._places[:, None]
        return None if bool(before.all()) else before[:, None, None, :]

    def _attend_folded(self, hidden: Tensor, query: Tensor, mask: Any, options: dict[str, Any]) -> Tensor:
        """Attend to hidden states, (rows, length, width), without keys and values: (rows, 1, heads, head width)."""
        query = query.squeeze(2)  # (rows, heads, head width)
        rows, heads, size = query.shape
        to_key, to_value = (cast("nn.Linear", projection) for projection in self._folded or ())
        keys, values = (own.weight.view(-1, size, hidden.shape[-1]) for own in (to_key, to_value))
        grouped = query.view(rows, len(keys), -1, size)  # queries that share keys and values, side by side
        asked = torch.einsum("rkgs,ksw->rkgw", grouped, keys).flatten(1, 2)  # (rows, heads, width)
        scores = asked @ hidden.transpose(1, 2)  # (rows, heads, length)
        if to_key.bias is not None:  # the same for all scores of a query, which softmax does not see
            scores = scores + torch.einsum("rkgs,ks->rkg", grouped, to_key.bias.view(-1, size)).view(rows, heads, 1)
        scaling = options.get("scaling")
        scores = scores * (size**-0.5 if scaling is None else scaling)
        if isinstance(mask, torch.Tensor):
            mask = mask.squeeze(2)
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights = torch.dropout(scores.softmax(dim=-1), options.get("dropout", 0.0), train=True)
        attended = (weights @ hidden).view(rows, len(values), -1, hidden.shape[-1])
        output = torch.einsum("rkgw,ksw->rkgs", attended, values)
        if to_value.bias is not None:
            shares = weights.sum(dim=-1).view(rows, len(values), -1, 1)  # 1 but for dropout
            output = output + shares * to_value.bias.view(len(values), 1, size)
        return output.reshape(rows, 1, heads, size)

    def _left_out(self, projection: nn.Module, hidden: Tensor) -> Forward:
        """Nothing, in the shape of a projection of one token per row."""
        width = cast("nn.Linear", projection).out_features
        nothing = hidden.new_zeros(1).expand(self._rows.count, 1, width)

        def forward(*_: Any, **__: Any) -> Tensor:
            return nothing

        return forward

    def _spread(self, leaf: Any) -> Any:
        """(rows, 1, ...) to (rows, length, ...), zeros at all other positions."""
        if not isinstance(leaf, torch.Tensor) or leaf.shape[:2] != (self._rows.count, 1):
            return leaf
        whole = leaf.new_zeros(self._rows.count, self._rows.length, *leaf.shape[2:])
        whole = whole.index_put((self._each, self._places), leaf.squeeze(1))
        if self._marks:
            torch.set_grad_enabled(True)  # until the forward ends
            whole, node = marked(whole)
            self.nodes.append(node)
        return whole


def _without_cache(given: Arguments) -> Arguments:
    """The same without what generation would keep: a layer that runs twice would add to it twice."""
    arguments, options = given
    kept = {name: None if isinstance(value, Cache) else value for name, value in options.items()}
    return tuple(None if isinstance(value, Cache) else value for value in arguments), kept
