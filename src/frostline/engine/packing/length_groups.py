"""The rows of a batch in groups of similar length, so that attention pads each to its own group's longest only.

Attention computes a score for each pair of positions, padding included. Another group costs another call of its
kernel, and saves the scores that its shorter rows would have had with the padding of the longer ones.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from frostline.engine.token_layout import gather, scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from frostline.engine.token_layout import TokenLayout

# So many scores of one head cost as much as another call, forward and backward. Measured with heads 32 wide in fp32 on
# one core: a call 60 to 90 microseconds, a score 8 to 18 nanoseconds; on more cores a score costs less.
CALL = 16384


def cuts(lengths: Sequence[int], call: float) -> list[int]:
    """Where rows are cut into groups: wherever a cut saves more than a call, the one that saves most first.

    Args:
        lengths: Of the rows, the shortest first.
        call: What a call costs, in scores.

    Returns:
        Where groups begin and end, from 0 to the number of rows.
    """
    squares: NDArray[np.int64] = np.asarray(lengths, dtype=np.int64) ** 2
    found, open_spans = {0, len(squares)}, [(0, len(squares))]
    while open_spans:
        begin, end = open_spans.pop()
        if end - begin < 2:
            continue
        saved = np.arange(1, end - begin) * (squares[end - 1] - squares[begin : end - 1])
        best = int(saved.argmax())
        if saved[best] > call:
            middle = begin + best + 1
            found.add(middle)
            open_spans += [(begin, middle), (middle, end)]
    return sorted(found)


class Groups:
    """The groups of one batch.

    Args:
        rows: The layout of the batch.
        call: What a call of attention costs, in scores of all heads; None for one group of all rows, as they are.

    Attributes:
        count: How many there are.
    """

    def __init__(self, rows: TokenLayout, call: float | None) -> None:
        self._rows = rows
        begins, ends = np.zeros(rows.count, dtype=np.int64), np.full(rows.count, rows.length, dtype=np.int64)
        if call is not None:
            real = rows.mask.cpu().numpy()
            begins, ends = real.argmax(axis=1), rows.length - real[:, ::-1].argmax(axis=1)
        order = np.argsort(ends - begins, kind="stable")
        bounds = cuts((ends - begins)[order].tolist(), call) if call is not None else [0, rows.count]
        self._members = [np.sort(order[first:last]) for first, last in pairwise(bounds)]
        self._spans = [slice(int(begins[own].min()), int(ends[own].max())) for own in self._members]
        self.count = len(self._members)
        # Groups stand end to end, each (rows of the group, its length).
        starts = np.empty(rows.count, dtype=np.int64)
        self._sizes: list[int] = []
        for own, span in zip(self._members, self._spans, strict=True):
            width = span.stop - span.start
            starts[own] = sum(self._sizes) + np.arange(len(own)) * width - span.start
            self._sizes.append(len(own) * width)
        row, place = rows.places // rows.length, rows.places % rows.length
        self._places = torch.from_numpy(starts).to(row.device)[row] + place

    def pad(self, packed: Tensor) -> tuple[Tensor, ...]:
        """(tokens, ...) to one tensor per group, (its rows, its length, ...), with zeros as padding, differentiably."""
        flat = torch.split(scatter(packed, self._places, sum(self._sizes)), self._sizes)
        shapes = [(len(own), -1, *packed.shape[1:]) for own in self._members]
        return tuple(own.view(shape) for own, shape in zip(flat, shapes, strict=True))

    def pack(self, padded: Sequence[Tensor]) -> Tensor:
        """What `pad` gives, back to (tokens, ...), differentiably."""
        flat = [own.flatten(0, 1) for own in padded]
        return gather(torch.cat(flat) if len(flat) > 1 else flat[0], self._places)

    def split(self, mask: Tensor | None) -> list[Tensor | None]:
        """A mask, (rows or 1, heads or 1, length or 1, length), as each group takes it."""
        if mask is None or (self.count == 1 and self._spans[0] == slice(0, self._rows.length)):
            return [mask] * self.count
        return [self._of(mask, own, span) for own, span in zip(self._members, self._spans, strict=True)]

    def _of(self, mask: Tensor, members: NDArray[np.int64], span: slice) -> Tensor:
        mask = mask[..., span]
        mask = mask[:, :, span] if mask.shape[2] > 1 else mask
        return mask[torch.from_numpy(members).to(mask.device)] if mask.shape[0] > 1 and self.count > 1 else mask


def can_split(mask: Tensor | None, rows: TokenLayout) -> bool:
    """Whether a mask says, row by row and position by position, what each attends to; None says nothing of them."""
    return mask is None or (
        mask.dim() == 4
        and mask.shape[0] in {1, rows.count}
        and mask.shape[2] in {1, rows.length}
        and mask.shape[3] == rows.length
    )
