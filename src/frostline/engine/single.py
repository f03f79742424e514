"""The last layer for one position of each row only.

Where the head reads one position (the first token, the last one), the last layer needs keys and values of all
tokens, but queries, attention's output and feed-forward network of that position alone. The layer is given only
that position; its projections for keys and values are given everything. Exact, forward and backward.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils._pytree import tree_map

from frostline.engine.interpose import interposed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


@dataclass
class Single:
    """One run of the last layer for one position of each row.

    Attributes:
        position: Which one.
        projections: The modules that make its keys and its values.
        running: Whether that layer is running right now.
    """

    position: Position
    projections: Sequence[nn.Module]
    running: bool = False
    _places: Tensor | None = field(default=None, repr=False)
    _rows: Rows | None = field(default=None, repr=False)

    def run(self, original: Forward, rows: Rows, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run the layer on packed hidden states, (1, tokens, width), and give them out padded, (rows, length, width)."""
        hidden = arguments[0]
        places = places_of(self.position, rows)
        each = torch.arange(rows.count, device=places.device)
        flat = torch.zeros(rows.mask.numel(), dtype=torch.int64, device=places.device)
        flat[rows.places] = torch.arange(rows.tokens, device=places.device)
        chosen = hidden.squeeze(0)[flat[each * rows.length + places]].unsqueeze(1)  # (rows, 1, width)
        self._places, self._rows = places, rows

        def everything(project: Forward) -> Forward:
            def forward(*_: Any, **__: Any) -> Tensor:
                return rows.pad(project(hidden).squeeze(0))  # (rows, length, heads x width)

            return forward

        with self._now(), interposed({module: everything(module.forward) for module in self.projections}):
            output = original(chosen, *arguments[1:], **options)

        def spread(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or leaf.shape[:2] != (rows.count, 1):
                return leaf
            whole = leaf.new_zeros(rows.count, rows.length, *leaf.shape[2:])
            return whole.index_put((each, places), leaf.squeeze(1))

        return tree_map(spread, output)

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
        assert self._rows is not None
        assert self._places is not None
        rows, places = self._rows, self._places
        key, value = (
            heads.transpose(1, 2).reshape(rows.count, rows.length, -1, heads.shape[-1]).transpose(1, 2)
            for heads in (key, value)
        )
        if isinstance(mask, torch.Tensor):  # (rows or 1, heads or 1, length or 1, length)
            mask = mask.expand(rows.count, -1, rows.length, -1)[torch.arange(rows.count, device=mask.device), :, places]
            mask = mask.unsqueeze(2)
        return function(module, query, key, value, mask, **options)

    @contextmanager
    def _now(self) -> Iterator[None]:
        self.running = True
        try:
            yield
        finally:
            self.running = False
