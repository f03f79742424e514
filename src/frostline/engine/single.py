"""The last layer for one position of each row only.

Where the head reads one position (the first token, the last one), the last layer needs keys and values of all
tokens, but queries, attention's output and feed-forward network of that position alone. The layer is given only
that position; its projections for keys and values are given everything. Exact, forward and backward.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils._pytree import tree_map

from frostline.engine.interpose import interposed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def keys_and_values(layer: nn.Module) -> list[nn.Module]:
    """The projections of a layer whose outputs are its keys and its values, told by their names."""
    return [module for path, module in layer.named_modules() if _KEYS_AND_VALUES.fullmatch(path.rpartition(".")[2])]


class Single:
    """One run of the last layer for one position of each row.

    Args:
        position: Which one.
        projections: The modules that make the layer's keys and its values.
        rows: The layout of the batch.

    Attributes:
        running: Whether that layer is running right now.
    """

    def __init__(self, position: Position, projections: Sequence[nn.Module], rows: Rows) -> None:
        self._projections = projections
        self._rows = rows
        self._each = torch.arange(rows.count, device=rows.mask.device)
        self._places = places_of(position, rows)
        self.running = False

    def run(self, original: Forward, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run the layer on packed hidden states, (1, tokens, width); give them out padded, (rows, length, width)."""
        rows = self._rows
        hidden = arguments[0].squeeze(0)
        packed_places = torch.zeros(rows.mask.numel(), dtype=torch.int64, device=rows.mask.device)
        packed_places[rows.places] = torch.arange(rows.tokens, device=rows.mask.device)
        chosen = hidden[packed_places[self._each * rows.length + self._places]].unsqueeze(1)  # (rows, 1, width)
        forwards = {module: self._projecting(module.forward, hidden) for module in self._projections}
        self.running = True
        try:
            with interposed(forwards):
                output = original(chosen, *arguments[1:], **options)
        finally:
            self.running = False
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
        key, value = (self._heads(projected) for projected in (key, value))
        if isinstance(mask, torch.Tensor):  # (rows or 1, heads or 1, length or 1, length)
            whole = mask.expand(self._rows.count, -1, self._rows.length, -1)
            mask = whole[self._each, :, self._places].unsqueeze(2)
        return function(module, query, key, value, mask, **options)

    def _projecting(self, project: Forward, hidden: Tensor) -> Forward:
        """A projection of all tokens, (rows, length, heads x width), whatever it is given."""

        def forward(*_: Any, **__: Any) -> Tensor:
            return self._rows.pad(project(hidden))

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
