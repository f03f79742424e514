"""A model of few layers and the full width, built from a configuration alone, and batches for it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch

from frostline.anatomy.modelmap import ModelMap
from frostline.checkpoints.quiet_loading import quiet
from frostline.engine.cost.units import unit_costs
from frostline.store.room import free_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

LAYERS = 3
_SHARE = 0.25  # of free memory that they may take, with gradients and optimizer
_LOWEST = 10  # token ids below are often special ones


class NotMeasurable(Exception):  # noqa: N818 - it is no error of the user's, but a reason
    """Why layers of a model are not measured, in words."""


def thin_model(model_class: type[PreTrainedModel], config: PretrainedConfig) -> tuple[nn.Module, float]:
    """A model of few layers, with random weights; and the FLOPs of a forward per token.

    Raises:
        NotMeasurable: If it would take too much memory, or its layers are no single chain.
    """
    own = copy.deepcopy(config)
    text: Any = own.get_text_config()
    count = getattr(text, "num_hidden_layers", None)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == count and count > LAYERS:  # kinds of layers, one by one
            setattr(text, name, value[:LAYERS])
    text.num_hidden_layers = LAYERS
    if text.pad_token_id is None:  # the tokenizer says it otherwise
        text.pad_token_id = own.pad_token_id = 0
    try:
        with quiet(), torch.device("meta"):
            shapes = model_class(own)
    except Exception as error:  # whatever a model's constructor makes of another number of layers
        raise NotMeasurable(f"it cannot be built with {LAYERS} layers") from error
    stacks = ModelMap.of(shapes).stacks
    if len(stacks) != 1 or len(stacks[0]) != LAYERS:
        raise NotMeasurable("its layers are no single chain")
    size = sum(parameter.nbytes for parameter in shapes.parameters())
    if 4 * size > _SHARE * free_memory():
        raise NotMeasurable("its layers take too much memory here")
    with quiet():
        thin = model_class(copy.deepcopy(own))
    return thin, sum(unit.flops for unit in unit_costs(thin) if not unit.per_row)


def batch_of(lengths: Sequence[int], model: nn.Module) -> dict[str, torch.Tensor]:
    """Rows of random tokens of these lengths, padded on the right, (rows, length), and labels that the model takes."""
    mask = torch.arange(max(lengths)) < torch.tensor(list(lengths))[:, None]
    vocabulary = int(cast("Any", model).get_input_embeddings().num_embeddings)
    ids = torch.randint(min(_LOWEST, vocabulary - 1), vocabulary, mask.shape)
    config: Any = cast("Any", model).config
    labels = torch.zeros(len(lengths), dtype=torch.long)
    if config.problem_type == "multi_label_classification":
        labels = torch.zeros(len(lengths), config.num_labels)
    elif config.num_labels == 1:
        labels = labels.float()
    padding = config.get_text_config().pad_token_id or 0
    return {"input_ids": ids.where(mask, padding), "attention_mask": mask.long(), "labels": labels}
