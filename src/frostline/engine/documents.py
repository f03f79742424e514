"""Documents that stand end to end in one row, read as a row each, and what is given out brought back.

Collators that pack (TRL's, transformers' ``DataCollatorWithFlattening``) give one row of ``position_ids`` that begin
anew with each document, and no mask; no document attends to another. Padded, each with one position more than the
longest has, they are rows like others. By that position an output that is one shorter, as next-token losses are that
leave the last token out, still has a value for each token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from frostline.compat.tensors import tree_map
from frostline.engine.late_logits import LateLogits, with_states
from frostline.engine.token_layout import TokenLayout

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

_IDS, _MASK, _POSITIONS = "input_ids", "attention_mask", "position_ids"
_BOUNDS, _LONGEST, _NUMBERS = ("cu_seq_lens_q", "cu_seq_lens_k"), ("max_length_q", "max_length_k"), "seq_idx"
_DESCRIBE = frozenset({*_BOUNDS, *_LONGEST, _NUMBERS})
_LABELS, _IGNORED = "labels", -100
_MOST_PADDED = 4  # times their tokens; what runs on padded rows, as a head may, would cost more than is saved


def documents_in(inputs: Mapping[str, Any]) -> TokenLayout | None:
    """Where documents that stand end to end in one row lie once each is a row; None where there are none."""
    ids, positions = inputs.get(_IDS), inputs.get(_POSITIONS)
    if not isinstance(ids, torch.Tensor) or not isinstance(positions, torch.Tensor) or inputs.get(_MASK) is not None:
        return None
    if ids.dim() != 2 or len(ids) != 1 or positions.shape != ids.shape or not ids.numel():
        return None
    begins = torch.cat([positions.new_zeros(1), (positions[0].diff() != 1).nonzero().reshape(-1) + 1])
    if bool((positions[0, begins] != positions[0, 0]).any()):
        return None
    if len(begins) == 1 and not any(inputs.get(name) is not None for name in _DESCRIBE):
        return None
    lengths = torch.cat([begins, begins.new_tensor([ids.shape[1]])]).diff()
    return TokenLayout(torch.arange(int(lengths.max()) + 1, device=ids.device) < lengths[:, None])


def why_end_to_end(inputs: Mapping[str, Any], rows: TokenLayout) -> str | None:
    """Why documents have to stay as they came; None where each may be a row."""
    if rows.mask.numel() > _MOST_PADDED * (rows.tokens + rows.count):
        return f"padded to the longest, the packed documents would be more than {_MOST_PADDED} times as many tokens"
    described = _description(rows, inputs)
    for name, value in inputs.items():
        if name in described:
            if isinstance(value, torch.Tensor) and value.tolist() != torch.as_tensor(described[name]).tolist():
                return f"{name} tells of other documents than {_POSITIONS}"
        elif isinstance(value, torch.Tensor) and value.dim() and value.shape[:2] != (1, rows.tokens):
            return f"{name} has not one value per token of the packed documents"
    labels = inputs.get(_LABELS)
    if labels is not None and bool((labels[0, rows.lengths.cumsum(0)[:-1]] != _IGNORED).any()):
        return f"the last token of a packed document is to predict the next one's first, whose label is not {_IGNORED}"
    return None


def as_rows(inputs: Mapping[str, Any], rows: TokenLayout) -> dict[str, Any]:
    """What a forward is called with, each document as a row, padded."""
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.dim() and name not in _DESCRIBE:
            blank = _IGNORED if name.endswith(_LABELS) else 0
            found[name] = value.new_full((*rows.mask.shape, *value.shape[2:]), blank)
            found[name][rows.mask] = value[0]
        elif name not in _DESCRIBE:
            found[name] = value
    return found | {_MASK: rows.mask.long()}


def as_one_row(inputs: Mapping[str, Any], rows: TokenLayout, described_by: Collection[str]) -> dict[str, Any]:
    """The way back from `as_rows`, of some of the rows too.

    Args:
        inputs: By name; tensors with a value per position are of shape (rows, length, ...).
        rows: Where the documents lie.
        described_by: The names of inputs that say besides where documents begin.
    """
    given = {
        name: value[rows.mask][None] if isinstance(value, torch.Tensor) and value.dim() else value
        for name, value in inputs.items()
        if name != _MASK
    }
    return given | _description(rows, described_by)


def end_to_end(output: Any, rows: TokenLayout) -> Any:
    """What a forward gave out for documents as rows, as it would have for one row of them.

    Tensors (rows, length, ...), or one position shorter, become (1, tokens, ...), or one token shorter.
    """

    def join(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.dim() < 2:
            return leaf
        missing = rows.length - leaf.shape[1]
        if len(leaf) != rows.count or missing not in {0, 1}:
            return leaf
        places = TokenLayout(rows.mask[:, : leaf.shape[1]])

        def packed(values: Tensor) -> Tensor:
            return places.pack(values)[None, : rows.tokens - missing]

        return with_states(leaf, packed) if isinstance(leaf, LateLogits) else packed(leaf)

    return tree_map(join, output)


def described_in(inputs: Mapping[str, Any]) -> frozenset[str]:
    """The names of inputs that say besides `position_ids` where documents begin."""
    return frozenset(name for name in _DESCRIBE if inputs.get(name) is not None)


def _description(rows: TokenLayout, names: Collection[str]) -> dict[str, Any]:
    """What collators say of where documents begin."""
    bounds = torch.nn.functional.pad(rows.lengths.cumsum(0), (1, 0)).to(torch.int32)
    numbers = torch.arange(rows.count, dtype=torch.int32, device=rows.mask.device).repeat_interleave(rows.lengths)[None]
    longest = int(rows.lengths.max())
    known = dict.fromkeys(_BOUNDS, bounds) | dict.fromkeys(_LONGEST, longest) | {_NUMBERS: numbers}
    return {name: value for name, value in known.items() if name in names}
