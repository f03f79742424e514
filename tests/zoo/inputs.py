"""A batch for a tiny model: three texts of different lengths, and what single types need beside them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from tests.zoo.shrink import FIRST_TEXT_ID, LAST_TEXT_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedConfig, PreTrainedModel

LENGTHS = (12, 7, 5)


def make_batch(
    model_type: str, model: PreTrainedModel, seed: int, lengths: tuple[int, ...] = LENGTHS, extra_padding: int = 0
) -> dict[str, torch.Tensor]:
    """Draw token ids, padded on the right, and everything else that the type's forward wants.

    Args:
        model_type: As transformers registers it.
        model: The model that will take the batch.
        seed: The same seed draws the same batch.
        lengths: Tokens per text.
        extra_padding: Positions behind the longest text.

    Returns:
        ``input_ids`` and ``attention_mask`` of shape (3, 12) unless told otherwise, and more where `model_type` has
        a use for it.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config.get_text_config()
    shape = (len(lengths), max(lengths) + extra_padding)
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]  # (rows, positions)
    ids = torch.randint(FIRST_TEXT_ID, LAST_TEXT_ID + 1, shape, generator=generator)
    eos = getattr(config, "eos_token_id", None)
    if eos is not None:
        ids[torch.arange(shape[0]), torch.tensor(lengths) - 1] = eos
    batch = {"input_ids": ids.where(mask, config.pad_token_id), "attention_mask": mask.long()}
    accepted = set(inspect.signature(model.forward).parameters)
    if "token_type_ids" in accepted and _segments(model_type, config) > 1:
        batch["token_type_ids"] = (torch.arange(shape[1]) >= min(lengths) - 2).long() * mask
    if "attention_mask" not in accepted:
        del batch["attention_mask"]
    if model_type in _EXTRA:
        batch |= _EXTRA[model_type](config, mask, generator)
    return batch


def _segments(model_type: str, config: PreTrainedConfig) -> int:
    return {"funnel": 3, "xlnet": 2}.get(model_type, getattr(config, "type_vocab_size", 0))


def _boxes(config: PreTrainedConfig, mask: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A box per token, (3, 12, 4): left, top, right, bottom; the last two not smaller than the first two."""
    corner = torch.randint(0, 20, (*mask.shape, 2), generator=generator)
    extent = torch.randint(1, 20, (*mask.shape, 2), generator=generator)
    return {"bbox": torch.cat([corner, corner + extent], dim=-1) * mask[..., None]}


def _table_cells(config: PreTrainedConfig, mask: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Segment, column, row and so on per token, (3, 12, 7)."""
    sizes = config.type_vocab_sizes
    cells = [torch.randint(0, min(size, 3), mask.shape, generator=generator) for size in sizes]
    return {"token_type_ids": torch.stack(cells, dim=-1) * mask[..., None]}


def _glyphs(config: PreTrainedConfig, mask: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Shape and pronunciation per token, each (3, 12)."""
    return {
        "input_shape_ids": torch.randint(1, config.shape_vocab_size, mask.shape, generator=generator) * mask,
        "input_pronunciation_ids": torch.randint(1, config.pronunciation_vocab_size, mask.shape, generator=generator)
        * mask,
    }


_EXTRA: dict[str, Callable[[PreTrainedConfig, torch.Tensor, torch.Generator], dict[str, torch.Tensor]]] = {
    "layoutlm": _boxes,
    "layoutlmv3": _boxes,
    "lilt": _boxes,
    "roc_bert": _glyphs,
    "tapas": _table_cells,
}
