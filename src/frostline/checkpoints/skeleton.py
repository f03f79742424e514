"""Building a sequence classifier without its weights: configuration, class, and all names and shapes."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, cast

import torch

from frostline.base.hub import hub_in_reach
from frostline.base.json import read_json
from frostline.checkpoints.headers import unreachable
from frostline.checkpoints.quiet_loading import quiet
from frostline.compat.models import attend_eagerly, hub_file
from frostline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PretrainedConfig, PreTrainedModel

    from frostline.checkpoints.source import Source

# How many a model may have of what is built in a loop, or takes memory before any weight, by the names that
# configurations have for such numbers. No model has so many; a larger number is a slip or malice.
_MOST = (
    (re.compile(r"_?num_labels"), 1_000_000),
    (re.compile(r"vocab_size|(\w+_)?positions?(_embeddings)?|n_ctx"), 100_000_000),
    (re.compile(r"(num|n)_(\w+_)?experts?|(\w+_)?experts"), 100_000),
    (re.compile(r"(num|n)_(\w+_)?(layer|block|stage)s?|(\w+_)?(layers|blocks|depths?|stages)"), 2_000),
)


def load_config(source: Source, *, trust_remote_code: bool = False, **overrides: Any) -> PretrainedConfig:
    """Read a model's configuration.

    Args:
        source: The model's place.
        trust_remote_code: Whether code that comes with the model may run.
        **overrides: Attributes to set, such as ``num_labels``.

    Raises:
        ModelError: If it cannot be had, read, or needs code of its own.
    """
    from transformers import AutoConfig

    offline = source.folder is None and not hub_in_reach()
    try:
        file = _config_file(source, offline=offline)
        values = read_json(file) if file is not None else None
        if isinstance(values, dict):  # what else it may be, the loader says
            _refuse_endless(values)
        _refuse_endless(overrides)
        with quiet():
            config: PretrainedConfig = AutoConfig.from_pretrained(
                source.name,
                trust_remote_code=trust_remote_code,
                local_files_only=offline,
                **overrides,
            )
    except Exception as error:  # noqa: BLE001 - a configuration checks its own fields, with errors of many kinds
        raise _config_error(source, error, offline=offline) from None
    return config


def _config_file(source: Source, *, offline: bool) -> Path | None:
    """Where the configuration lies, fetched from the hub if need be; None where the hub has none."""
    if source.folder is not None:
        return source.folder / "config.json"
    with quiet():
        return hub_file(source.name, "config.json", cached_only=offline)


class _EndlessError(ValueError):
    """A configuration names a number of which nothing could be built in the end."""


def _refuse_endless(values: Mapping[str, Any]) -> None:
    """Refuse numbers of which nothing could be built in the end.

    Raises:
        _EndlessError: If there is one.
    """
    for name, value in values.items():
        if isinstance(value, dict) and name.endswith("config"):
            _refuse_endless(value)
        most = next((most for pattern, most in _MOST if pattern.fullmatch(name)), None)
        for number in value if isinstance(value, list) else [value]:
            if most is not None and isinstance(number, int) and number > most:
                raise _EndlessError(f"{name} is {number}, and at most {most:,} can be built")


def _config_error(source: Source, error: Exception, *, offline: bool) -> ModelError:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # it quotes its message
    reason = " ".join(text.split())[:160] if text else type(error).__name__
    if "trust_remote_code" in text:
        return ModelError(
            f"'{source.name}' brings model code of its own, which is never run unasked.\n"
            "If you trust its author, pass --trust-remote-code (trust_remote_code=True)."
        )
    if source.folder is None and not isinstance(error, _EndlessError):
        if offline:
            return unreachable(source.name)
        return ModelError(
            f"The hub gives no model '{source.name}': {reason}\nCheck the name; a private one needs 'hf auth login'."
        )
    mend = "" if isinstance(error, _EndlessError) else "\nMend its config.json, or copy it anew from its source."
    return ModelError(f"The configuration in '{source.name}' cannot be used: {reason}{mend}")


def classifier_class(config: PretrainedConfig, name: str, *, trust_remote_code: bool = False) -> type[PreTrainedModel]:
    """Find the class that classifies sequences with this configuration.

    Args:
        config: The configuration.
        name: The folder or hub name that it came from.
        trust_remote_code: Whether it may be one that comes with the model.

    Raises:
        ModelError: If transformers has none for it.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    mapped = getattr(config, "auto_map", None)
    brought = mapped.get("AutoModelForSequenceClassification") if isinstance(mapped, dict) else None
    if trust_remote_code and brought is not None:
        return cast("type[PreTrainedModel]", get_class_from_dynamic_module(brought, name))
    try:
        found = cast("type[PreTrainedModel]", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)])
    except KeyError:
        raise ModelError(
            f"'{name}' is of the type {config.model_type!r}, for which transformers has no sequence classifier.\n"
            "Choose a text model such as BERT, RoBERTa, DeBERTa or Llama."
        ) from None
    return found


def skeleton(config: PretrainedConfig, name: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Build a classifier on the meta device: all names and shapes, no values, next to no memory.

    Args:
        config: The configuration.
        name: The folder or hub name that it came from.
        trust_remote_code: Whether model code that comes with it may run.

    Raises:
        ModelError: If the configuration does not make a classifier.
    """
    model_class = classifier_class(config, name, trust_remote_code=trust_remote_code)
    own = copy.deepcopy(config)
    attend_eagerly(own)  # nothing is computed; others want libraries and devices of their own
    try:
        with quiet(), torch.device("meta"):
            model = model_class(own)
            model.tie_weights()  # transformers 5.0 leaves that to its loader
    except Exception as error:  # whatever a model's constructor makes of a bad configuration
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise ModelError(f"The configuration of '{name}' does not build a {model_class.__name__}: {reason}") from error
    return model
