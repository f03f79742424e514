"""The last layer for one position of each row only.

Where the head reads one position (the first token, the last one), the last layer needs queries, attention's output and
its feed-forward network for that position alone. The layer is given only that position. Its projections for keys and
values are given everything; or, where they are plain linear maps, nothing: for one query q and hidden states h, the
scores q W_k h are those of the one vector q W_k with all h, and the attended value is W_v times the attended h, by
associativity. Both are exact but for rounding, forward and backward.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch.utils._pytree import tree_map

from frostline.engine.interpose import interposed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from frostline.engine.interpose import Forward
    from frostline.engine.rows import Rows

Position = Literal["first token", "last token"]

_KEYS_AND_VALUES = re.compile(r"k|v|key|value|[kv]_(proj|lin)")


def pooled_position(strength: Tensor, rows: Rows) -> Position | None:
    """Which one position of each row the logits depend on; None where it is not one of those that can be named.

    Args:
        strength: How strongly the logits of each row depend on each of its positions, (rows, length).
        rows: The layout of the batch.
    """
    for position in ("first token", "last token"):
        chosen = torch.zeros_like(strength, dtype=torch.bool)
        chosen[torch.arange(rows.count), places_of(position, rows)] = True
        if bool((strength[~chosen] == 0).all()):
            return position
    return None


def places_of(position: Position, rows: Rows) -> Tensor:
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


class Single:
    """One run of the last layer for one position of each row.

    Args:
        position: Which one.
        projections: The modules that make the layer's keys and its values, in this order.
        rows: The layout of the batch.
        folded: Whether they are plain linear maps, to be folded into query and attended value.

    Attributes:
        running: Whether that layer is running right now.
    """

    def __init__(
        self, position: Position, projections: tuple[nn.Module, nn.Module], rows: Rows, *, folded: bool
    ) -> None:
        self._projections = projections
        self._rows = rows
        self._folded = folded
        self._hidden: Tensor | None = None  # (rows, length, width)
        self._each = torch.arange(rows.count, device=rows.mask.device)
        self._places = places_of(position, rows)
        self.running = False

    def run(self, original: Forward, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run the layer on packed hidden states, (1, slots, width); give them out padded, (rows, length, width)."""
        rows = self._rows
        hidden = rows.cut(arguments[0].squeeze(0))
        packed_places = torch.zeros(rows.mask.numel(), dtype=torch.int64, device=rows.mask.device)
        packed_places[rows.places] = torch.arange(rows.tokens, device=rows.mask.device)
        chosen = hidden[packed_places[self._each * rows.length + self._places]].unsqueeze(1)  # (rows, 1, width)
        self._hidden = rows.pad(hidden) if self._folded else None
        project = self._left_out if self._folded else self._of_everything
        forwards = {module: project(module, hidden) for module in self._projections}
        self.running = True
        try:
            with interposed(forwards):
                output = original(chosen, *arguments[1:], **options)
        finally:
            self.running = False
            self._hidden = None
        return tree_map(self._spread, output)

    def attend(
        self,
        function: Callable[..., Any],
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        options: dict[str, Any],
    ) -> Any:
        """Attend from one position to all: query (rows, heads, 1, width), keys as the layer cut them up for one."""
        if isinstance(mask, torch.Tensor):  # (rows or 1, heads or 1, length or 1, length)
            whole = mask.expand(self._rows.count, -1, self._rows.length, -1)
            mask = whole[self._each, :, self._places].unsqueeze(2)
        if self._hidden is not None:
            return self._attend_folded(self._hidden, query, mask, options), None
        key, value = (self._heads(projected) for projected in (key, value))
        return function(module, query, key, value, mask, **options)

    def _attend_folded(self, hidden: Tensor, query: Tensor, mask: Any, options: dict[str, Any]) -> Tensor:
        """Attend to hidden states, (rows, length, width), without keys and values: (rows, 1, heads, head width)."""
        query = query.squeeze(2)  # (rows, heads, head width)
        rows, heads, size = query.shape
        to_key, to_value = (cast("nn.Linear", projection) for projection in self._projections)
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

    def _of_everything(self, projection: nn.Module, hidden: Tensor) -> Forward:
        """A projection of all tokens, (rows, length, heads x head width), whatever it is given."""
        project: Forward = projection.forward

        def forward(*_: Any, **__: Any) -> Tensor:
            projected: Tensor = project(hidden)
            return self._rows.pad(projected)

        return forward

    def _left_out(self, projection: nn.Module, hidden: Tensor) -> Forward:
        """Nothing, in the shape of a projection of one token per row."""
        width = cast("nn.Linear", projection).out_features
        nothing = hidden.new_zeros(1).expand(self._rows.count, 1, width)

        def forward(*_: Any, **__: Any) -> Tensor:
            return nothing

        return forward

    def _heads(self, projected: Tensor) -> Tensor:
        """(rows, length x heads, 1, width), cut up as if each row had one position, to (rows, heads, length, width)."""
        rows, width = self._rows, projected.shape[-1]
        return projected.transpose(1, 2).reshape(rows.count, rows.length, -1, width).transpose(1, 2)

    def _spread(self, leaf: Any) -> Any:
        """(rows, 1, ...) to (rows, length, ...), zeros at all other positions."""
        if not isinstance(leaf, torch.Tensor) or leaf.shape[:2] != (self._rows.count, 1):
            return leaf
        whole = leaf.new_zeros(self._rows.count, self._rows.length, *leaf.shape[2:])
        return whole.index_put((self._each, self._places), leaf.squeeze(1))
