"""The self-check for a model and a batch of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from frostline.engine.batch_inputs import NeedsPlain, read_call
from frostline.engine.engine import Engine
from frostline.engine.replay.boundary import core_of
from frostline.engine.settings import EngineSettings
from frostline.errors import DataError, ModelError
from frostline.evidence.probe.inputs import refuse_model, usable_batch

if TYPE_CHECKING:
    from torch import nn

    from frostline.engine.selfcheck.result import SelfCheck


def selfcheck(model: nn.Module, batch: Any) -> SelfCheck:
    """Measure which fast paths give a model's own results.

    A few rows of the batch are run on the plain path and on each fast one, dropout off; a path is admitted if logits
    and gradients agree. Parameters, gradients, modes and random states stay as they are.

    Args:
        model: The model, its flags as for training. What is frozen in it decides what can be replayed.
        batch: A mapping for ``model(**batch)``: ``input_ids`` of shape (rows, length), usually ``attention_mask``.

    Returns:
        Per path whether it is taken, and the largest differences; print it.

    Raises:
        ModelError: If no step can be taken with the model.
        DataError: If the batch is none, or one that only the plain path can answer.
    """
    refuse_model(model)
    inputs = usable_batch(model, batch)
    if not isinstance(inputs, Mapping):
        raise DataError(
            f"The batch is a {type(batch).__name__}; the fast paths are found by the names of what a model is given.\n"
            "Give a mapping for model(**batch)."
        )
    core = core_of(model)
    signature = inspect.signature(type(core).forward.__get__(core))
    try:
        read_call(signature, (), inputs, getattr(core, "config", None))
    except NeedsPlain as reason:
        raise DataError(
            f"Only the plain path can answer this batch: {reason}.\nGive a batch as training has it."
        ) from None
    try:
        return Engine(model, EngineSettings()).check(inputs)
    except NeedsPlain as reason:
        raise ModelError(f"Only the plain path can run {type(core).__name__}: {reason}.{_mend(core)}") from None


def _mend(core: nn.Module) -> str:
    if not any(getattr(module, "gradient_checkpointing", False) for module in core.modules()):
        return ""
    newer = hasattr(core, "activation_checkpointing_disable")
    return f"\nSwitch it off: {'activation' if newer else 'gradient'}_checkpointing_disable()."
