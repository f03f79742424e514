"""Checkpoints of a training run as deltas: only what differs from the checkpoint that training started from."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from frostline.checkpoints.delta.delta import load_delta, save_delta
from frostline.checkpoints.headers import is_delta, weight_files
from frostline.checkpoints.quiet_loading import quiet
from frostline.checkpoints.skeleton import classifier_class
from frostline.checkpoints.source import locate
from frostline.errors import ModelError, SettingsError

DELTA_FOLDER = "delta"


def refuse_without_base(model: nn.Module) -> None:
    """Refuse to save checkpoints as deltas where there is nothing that they could be deltas of.

    Raises:
        SettingsError: If the model is no sequence classifier of transformers, or its checkpoint is not known.
    """
    reason = _no_base(model)
    if reason is not None:
        raise SettingsError(
            f"save_deltas needs the checkpoint that {type(model).__name__} was loaded from. {reason}\n"
            "Load a sequence classifier by from_pretrained, or leave save_deltas out."
        )


def _no_base(model: nn.Module) -> str | None:
    from transformers import PreTrainedModel

    name = getattr(model, "name_or_path", "")
    if not isinstance(model, PreTrainedModel) or not name:
        return "It was not loaded by from_pretrained."
    try:
        folder = locate(name).folder
        if folder is not None and is_delta(folder):
            return f"'{name}' is a delta itself; rebuild it by 'frostline delta load' first."
        known = classifier_class(model.config, name) is type(model)
    except ModelError as error:
        return str(error).splitlines()[0]
    return None if known else "It is no sequence classifier."


def keep_delta(checkpoint: Path, base: str) -> None:
    """Replace the weights of a checkpoint by what they have and their base has not.

    Args:
        checkpoint: A folder with weights, configuration and tokenizer.
        base: The checkpoint that training started from.
    """
    made = checkpoint.with_name(f"{checkpoint.name}.{DELTA_FOLDER}")
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed here
    with quiet():
        save_delta(base, checkpoint, made)
    weights = weight_files(checkpoint, str(checkpoint))
    shutil.rmtree(checkpoint / DELTA_FOLDER, ignore_errors=True)
    made.rename(checkpoint / DELTA_FOLDER)
    for file in (*weights, *checkpoint.glob("*.index.json")):
        file.unlink()


def has_delta(checkpoint: str | None) -> bool:
    """Whether a checkpoint holds a delta in the place of weights."""
    return checkpoint is not None and (Path(checkpoint) / DELTA_FOLDER).is_dir()


def restore_delta(model: nn.Module, checkpoint: str) -> None:
    """Give a model the weights that a checkpoint with a delta stands for.

    Raises:
        ModelError: If the delta is damaged, or its base is another one by now.
    """
    model.load_state_dict(load_delta(Path(checkpoint) / DELTA_FOLDER).state_dict())
