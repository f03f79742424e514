"""The few short rows of a batch that fast paths are tried on."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from frostline.checkpoints.classifier import position_limit
from frostline.engine.token_layout import TokenLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from frostline.engine.batch_inputs import Call

MOST_ROWS = 4  # of a batch are tried; it costs a few forwards of so many
_MOST_TOKENS = 32  # of a row are tried, before the rows as they are
_LEAST_WIDTH = 8
_PADDING = 3  # so many positions of the trial are padding in every row
_WIDTHS = 24  # so many are looked at for one that nothing else has
_IDS, _MASK, _LABELS = "input_ids", "attention_mask", "labels"
_IGNORED = -100  # the label of a position that has none


def trial_rows(call: Call, model: nn.Module) -> Call:
    """Make a few short rows of different lengths, padded as the batch is, and all of them by a few positions.

    Where rows are of one length, or long, tokens are left out of their middle, so that what opens and ends a text
    stays. A lone row is taken twice, the second time with its inner tokens in another order. Their width is one that
    no other axis of the inputs and no axis of a parameter has.
    """
    order = call.rows.lengths.argsort().tolist()
    wanted = list(dict.fromkeys(order[round(place * (len(order) - 1) / (MOST_ROWS - 1))] for place in range(MOST_ROWS)))
    lone = len(wanted) == 1
    whole, call = call, call.select(wanted * 2 if lone else wanted)
    if call.layout in {"no mask", "no tokens"}:
        return call
    longest = min(int(call.rows.lengths.max()), _MOST_TOKENS - _PADDING)
    taken = _sizes(whole, model)
    width = _width(model, taken, max(longest + _PADDING, _LEAST_WIDTH))
    longest = max(1, min(longest, width - _PADDING))
    # Without the padding that all rows have, their width is another one than everything else's as well.
    longest = next((length for length in range(longest, 1, -1) if length not in taken), longest)
    lengths = [min(length, longest) for length in call.rows.lengths.tolist()]
    if len(set(lengths)) < len(lengths):
        shorter = range(0, 2 * len(lengths), 2) if lone else range(2 * (len(lengths) - 1), -1, -2)  # the longest stays
        lengths = [max(min(length, 2), length - less) for length, less in zip(lengths, shorter, strict=True)]
    chosen = torch.zeros(len(lengths), width, dtype=torch.int64, device=call.rows.mask.device)
    real = torch.zeros_like(chosen, dtype=torch.bool)
    for row, length in enumerate(lengths):
        places = call.rows.mask[row].nonzero().reshape(-1)
        span = slice(width - length, width) if call.layout == "left" else slice(length)
        kept = torch.cat([places[: length - 1], places[-1:]])
        kept[1:-1] = kept[1:-1].roll(row) if lone else kept[1:-1]
        chosen[row, span] = kept
        real[row, span] = True
    inputs = dict(call.inputs)
    for name in call.aligned:
        value = call.inputs[name]
        index = chosen.reshape(*chosen.shape, *(1 for _ in value.shape[2:])).expand(-1, -1, *value.shape[2:])
        blank = torch.full((), _blank(name, whole, model), dtype=value.dtype, device=value.device)
        there = real.reshape(*real.shape, *(1 for _ in value.shape[2:]))
        inputs[name] = value.gather(1, index).where(there, blank)
    return replace(call, inputs=inputs, rows=TokenLayout(real))


def varied_rows(call: Call) -> Call:
    """Choose a few rows that are no texts and differ; of a lone one, the second is the same turned round.

    Of rows that are all alike it would not be seen that one has an effect on another.
    """
    digests = call.digests(whole=True, unread=frozenset({_LABELS}))
    places = [digests.index(digest) for digest in dict.fromkeys(digests)][:MOST_ROWS]
    if len(places) > 1:
        return call.select(places)
    twice = call.select(places * 2)
    inputs = dict(twice.inputs)
    for name, value in inputs.items():
        if twice.is_per_row(value) and value.dim() > 1:
            inputs[name] = torch.stack([value[0], value[1].flip(-1)])
    return replace(twice, inputs=inputs)


def _sizes(call: Call, model: nn.Module) -> set[int]:
    """The sizes of all axes of the inputs and of parameters."""
    taken = {size for parameter in model.parameters() for size in parameter.shape}
    for name, value in call.inputs.items():
        if isinstance(value, torch.Tensor):
            taken.update(value.shape[2:] if name in call.aligned else value.shape)
    return taken | {*call.shape, *range(1, MOST_ROWS + 1)}


def _width(model: nn.Module, taken: set[int], least: int) -> int:
    """How wide the rows of a trial are: about so wide, and as nothing else."""
    limit = position_limit(model) if isinstance(model, PreTrainedModel) else None
    widths = [least + more for more in range(_WIDTHS)] + [least - fewer for fewer in range(1, least - MOST_ROWS)]
    widths = [width for width in widths if limit is None or width <= limit]
    return next((width for width in widths if width not in taken), min(least, limit or least))


def _blank(name: str, call: Call, model: nn.Module) -> Any:
    """What stands at padded positions of an input: what does in the batch, else what usually does."""
    there = call.paddings.get(name)
    if there is not None:
        return there
    if name == _IDS:
        return getattr(getattr(model, "config", None), "pad_token_id", None) or 0
    return _IGNORED if name == _LABELS else 0


def aligned_inputs(call: Call, model: nn.Module, runs: Callable[[Call], bool]) -> Call | None:
    """Find out which inputs have one value per position of the mask, and make the rows to try with just those changed.

    An input of the right shape may have nothing to do with the mask: a second text, or features whose number happens
    to be the batch's width. Rows of another width are given to the forward, with as few of the inputs brought to that
    width as it can do with.

    Args:
        call: A batch.
        model: The model.
        runs: Tells whether the plain forward takes a call.

    Returns:
        The rows to try; None where the forward takes none of another width, or where rows have no tokens.
    """
    if call.layout == "no tokens":
        return None
    if call.layout == "no mask":
        tried = trial_rows(call, model)
        return tried if runs(tried) else None
    surely = frozenset({_IDS, _MASK})
    # What stands behind the mask in another way than padding does is no padding.
    others = sorted(name for name in call.aligned - surely if call.paddings.get(name, 0) is not None)
    if call.paddings.get(_IDS, 0) is None:
        return None
    for more in _subsets(others):
        tried = trial_rows(replace(call, aligned=surely.union(more)), model)
        if runs(tried):
            return tried
    return None


def _subsets(names: list[str]) -> Iterator[tuple[str, ...]]:
    """The smallest first."""
    return chain.from_iterable(combinations(names, count) for count in range(len(names) + 1))


def rows_as_they_are(call: Call, most_tokens: int) -> Call:
    """Choose a few rows of a batch at their own width: the longest, the shortest, and some between.

    Args:
        call: The batch.
        most_tokens: So many positions at most, one row in any case.
    """
    order = call.rows.lengths.argsort(descending=True).tolist()
    count = max(1, min(MOST_ROWS, len(order), most_tokens // max(1, call.rows.length)))
    places = [round(place * (len(order) - 1) / max(1, count - 1)) for place in range(count)]
    return call.select(sorted({order[place] for place in places}))


def with_another(call: Call) -> Call:
    """The same rows, and the longest again with its tokens in another order.

    Of one document alone, or of equal ones, it is not seen whether one attends to another.
    """
    longest = int(call.rows.lengths.argmax())
    more = call.select([*range(call.rows.count), longest])
    ids, real = more.inputs[_IDS].clone(), more.rows.mask[-1]
    ids[-1, real] = ids[-1, real].roll(1)
    return replace(more, inputs=more.inputs | {_IDS: ids})
