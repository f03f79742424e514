"""A folder of adapters as PEFT saves it: what they were trained on, and the model with them in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from frostline.base.json import read_json
from frostline.checkpoints.headers import ADAPTER_CONFIG, ADAPTER_WEIGHTS, file_headers, is_adapter
from frostline.checkpoints.source import Source, locate
from frostline.compat.peft import config_of, require_peft, saved_names, with_adapters, with_stored_adapters
from frostline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """A folder of adapters.

    Attributes:
        folder: The folder.
        base: The model that they belong to.
        values: What their configuration says.
    """

    folder: Path
    base: Source
    values: dict[str, Any]

    @classmethod
    def open(cls, source: Source, base: str | None = None) -> AdapterFolder | None:
        """Open a folder of adapters.

        Args:
            source: A model's place.
            base: The model that they belong to; by default the one that their configuration names.

        Returns:
            The folder; None where the place is a model of its own.

        Raises:
            ModelError: If it is one, but its configuration or its base cannot be used.
            MissingExtraError: If PEFT is not installed.
        """
        folder = source.folder
        if folder is None or not is_adapter(folder):
            return None
        require_peft(f"'{source.name}', a folder of adapters,")
        values = adapter_values(folder / ADAPTER_CONFIG)
        named = values.get("base_model_name_or_path")
        return cls(folder, _base_of(folder, named) if base is None else locate(base), values)

    def on_skeleton(self, model: PreTrainedModel) -> Any:
        """Put adapters without values on a model on the meta device, as they would train."""
        config = config_from(self.values, self.folder / ADAPTER_CONFIG)
        config.inference_mode = False
        with torch.device("meta"):
            return with_adapters(model, config)

    def on_model(self, model: PreTrainedModel) -> Any:
        """Put the adapters on the base, in eval mode.

        Raises:
            ModelError: If their weights are missing, damaged or do not fit.
        """
        file = self.folder / ADAPTER_WEIGHTS
        if not file.is_file():
            raise ModelError(f"The folder '{self.folder}' lacks {ADAPTER_WEIGHTS}.\nSave the adapters as safetensors.")
        stored = set(file_headers(file))
        config = config_from(self.values, self.folder / ADAPTER_CONFIG)
        try:
            trains = not config.is_prompt_learning  # PEFT loads prompts only to run them
            adapted = with_stored_adapters(model, self.folder, trains=trains)
        except (ValueError, RuntimeError, TypeError, KeyError) as error:  # of PEFT and torch, where shapes do not fit
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"The adapters in '{self.folder}' do not fit '{self.base.name}': {reason}") from None
        lost = saved_names(adapted) ^ stored
        if lost:
            raise ModelError(
                f"The adapters in '{self.folder}' do not fit their configuration: {min(lost)} is in one of "
                "them only.\nCopy the folder anew from its source."
            )
        for name, parameter in adapted.named_parameters():
            if not trains and (".prompt_encoder." in f".{name}" or ".modules_to_save." in name):
                parameter.requires_grad_(True)  # as they did when they were trained
        return adapted.eval()


def adapter_values(file: Path) -> dict[str, Any]:
    """Read a configuration of PEFT.

    Raises:
        ModelError: If it cannot be read, or is none.
    """
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)[:80]
        raise ModelError(f"The configuration of adapters '{file}' cannot be read: {reason}.") from None
    if not isinstance(values, dict) or not isinstance(values.get("peft_type"), str):
        raise ModelError(
            f"'{file}' is no configuration of PEFT: it names no peft_type.\nGive adapter_config.json as PEFT writes it."
        )
    return values


def config_from(values: Mapping[str, Any], file: Path) -> Any:
    """Build PEFT's configuration from what a file holds.

    Raises:
        ModelError: If PEFT takes it for none.
    """
    try:
        return config_of(values)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
        raise ModelError(f"PEFT cannot use the configuration '{file}': {reason}") from None


def _base_of(folder: Path, name: Any) -> Source:
    where = f"the base_model_name_or_path in '{folder / ADAPTER_CONFIG}'"
    if not isinstance(name, str) or not name:
        raise ModelError(f"It is not known what the adapters in '{folder}' belong to: {where} is {name!r}.")
    try:
        source = locate(name)
    except ModelError as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{first}\nThat is {where}: write down where the base lies now.") from None
    if source.folder is not None and not Path(name).is_absolute():
        raise ModelError(f"{where.capitalize()} is '{name}', a relative path.\nWrite an absolute one, or a hub name.")
    if source.folder is not None and is_adapter(source.folder):
        raise ModelError(f"{where.capitalize()} is '{name}', which holds adapters itself.\nName a whole model.")
    return source
