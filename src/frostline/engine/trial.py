"""The few short rows of a batch that fast paths are tried on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from frostline.checkpoints.classifier import position_limit
from frostline.engine.calls import Call
from frostline.engine.rows import Rows

if TYPE_CHECKING:
    from torch import nn

MOST_ROWS = 4  # of a batch are tried; it costs a few forwards of so many
_MOST_TOKENS = 48  # of a row are tried
_LEAST_WIDTH = 8
_PADDING = 3  # so many positions of the trial are padding in every row


def trial_rows(call: Call, model: nn.Module) -> Call:
    """A few short rows of different lengths, padded as the batch is, and all of them by a few positions.

    Where rows are of one length, or long, tokens are left out of their middle, so that what opens and ends a text
    stays. A lone row is taken twice, the second time with its inner tokens in another order.
    """
    order = call.rows.lengths.argsort().tolist()
    wanted = list(dict.fromkeys(order[round(place * (len(order) - 1) / (MOST_ROWS - 1))] for place in range(MOST_ROWS)))
    lone = len(wanted) == 1
    call = call.select(wanted * 2 if lone else wanted)
    layout = call.layout
    if layout == "no mask":
        return call
    limit = position_limit(model) if isinstance(model, PreTrainedModel) else None
    width = min(max(call.rows.length, min(_LEAST_WIDTH, limit or _LEAST_WIDTH)), _MOST_TOKENS)
    longest = max(1, width - _PADDING)
    lengths = [min(length, longest) for length in call.rows.lengths.tolist()]
    if len(set(lengths)) < len(lengths):
        lengths = [max(min(length, 2), length - 2 * place) for place, length in enumerate(lengths)]
    padding = getattr(getattr(model, "config", None), "pad_token_id", None) or 0
    chosen = torch.zeros(len(lengths), width, dtype=torch.int64, device=call.rows.mask.device)
    real = torch.zeros_like(chosen, dtype=torch.bool)
    for row, length in enumerate(lengths):
        places = call.rows.mask[row].nonzero().reshape(-1)
        span = slice(width - length, width) if layout == "left" else slice(length)
        kept = torch.cat([places[: length - 1], places[-1:]])
        kept[1:-1] = kept[1:-1].roll(row) if lone else kept[1:-1]
        chosen[row, span] = kept
        real[row, span] = True
    inputs = dict(call.inputs)
    for name, value in call.inputs.items():
        if call.per_token(value):
            index = chosen.reshape(*chosen.shape, *(1 for _ in value.shape[2:])).expand(-1, -1, *value.shape[2:])
            blank = torch.full((), padding if name == "input_ids" else 0, dtype=value.dtype, device=value.device)
            there = real.reshape(*real.shape, *(1 for _ in value.shape[2:]))
            inputs[name] = value.gather(1, index).where(there, blank)
    return Call(inputs, Rows(real))
