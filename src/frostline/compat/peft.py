"""PEFT, which is optional: whether it is there, what it does to a model, and which layers it adapts unless told."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from frostline.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn


def require_peft(what: str) -> None:
    """Look whether PEFT is installed.

    In: all.

    Args:
        what: What needs it.

    Raises:
        MissingExtraError: If it is not.
    """
    if find_spec("peft") is None:
        raise MissingExtraError(
            f"{what} needs PEFT, which is not installed.\nInstall it with: pip install 'frostline[peft]'"
        )


def usual_targets(model_type: str) -> list[str] | str | None:
    """Give the layers that LoRA adapts in a type of model unless told: names, a regular expression, or None.

    In: all; which types are listed differs from version to version. Lost: the names are guessed, or asked for.
    """
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as BY_TYPE

    found: Any = BY_TYPE.get(model_type)
    return found if found is None or isinstance(found, str) else list(found)


def config_of(values: Mapping[str, Any]) -> Any:
    """Build the configuration of adapters from plain values; what this version does not know is left out, as PEFT does.

    In: all.
    """
    from peft import PeftConfig

    with warnings.catch_warnings(action="ignore"):
        return PeftConfig.from_peft_type(**values)  # type: ignore[no-untyped-call]


def with_adapters(model: nn.Module, config: Any) -> Any:
    """Put new adapters on a model; on the meta device too.

    In: all.

    Args:
        model: The model; changed in place.
        config: The configuration of PEFT.

    Returns:
        The ``PeftModel`` around it.
    """
    from peft import get_peft_model

    with warnings.catch_warnings(action="ignore"):  # of what transformers 5.23 has renamed, and advice on calling PEFT
        return get_peft_model(model, config)


def with_stored_adapters(model: nn.Module, folder: Path, *, trains: bool) -> Any:
    """Put the adapters of a folder on a model.

    In: all.

    Args:
        model: The model; changed in place.
        folder: What PEFT saved.
        trains: Whether they are to train.

    Returns:
        The ``PeftModel`` around it.
    """
    from peft import PeftModel

    with warnings.catch_warnings(action="ignore"):  # as above
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trains)


def saved_names(model: Any) -> set[str]:
    """Give the names under which a ``PeftModel`` saves its adapters and what trains beside them.

    In: all.
    """
    from peft import get_peft_model_state_dict

    return set(get_peft_model_state_dict(model, save_embedding_layers=False))
