"""Loading a checkpoint that holds weights by other names than the model, or in other parts."""

from __future__ import annotations

from torch import nn

from frostline.checkpoints.conversions import Places
from frostline.checkpoints.tensor_files import Checkpoint
from frostline.errors import ModelError


def load_renamed(model: nn.Module, checkpoint: str) -> None:
    """Load those weights of a checkpoint that it does not hold by the model's own names, as ``from_pretrained`` would.

    ``save_pretrained`` writes weights as the checkpoint had them that a model came from: experts one by one, the norms
    of an old BERT by their old names. ``transformers.Trainer`` loads by the model's names and passes over all others.

    Args:
        model: The model; one that is not of transformers has no other names.
        checkpoint: The folder; one whose weights are kept in another form (as FSDP does) is left to the Trainer.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return
    try:
        stored = Checkpoint.open(checkpoint).tensors
    except ModelError:
        return
    own = model.state_dict().keys()
    if stored.keys() <= own:
        return
    parts = [part for part in Places(model, stored).parts if not part.sources.keys() <= own]
    loaded = {name: tensor for part in parts for name, tensor in part.load().items()}
    values = {name: tensor.load() for name, tensor in loaded.items()}
    model.load_state_dict(values, strict=False)
