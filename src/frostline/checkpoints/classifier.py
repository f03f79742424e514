"""Building a sequence classifier: with its weights, or as a skeleton without any."""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from frostline.checkpoints.headers import is_delta, read_headers, unreachable
from frostline.checkpoints.quiet import quiet
from frostline.checkpoints.source import Source, locate
from frostline.compat.models import attend_eagerly
from frostline.errors import ModelError
from frostline.hub import hub_in_reach
from frostline.plainjson import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import datasets
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


# How many a model may have of what is built in a loop, by the names that configurations have for such numbers. No model
# has a tenth of so many; a larger number is a slip or malice, and would be built for ever.
_MOST = (
    (re.compile(r"_?num_labels"), 1_000_000),
    (re.compile(r"(num|n)_(\w+_)?experts?|(\w+_)?experts"), 100_000),
    (re.compile(r"(num|n)_(\w+_)?(layer|block|stage)s?|(\w+_)?(layers|blocks|depths?|stages)"), 2_000),
)
# One of these is in every folder that a tokenizer was saved in.
_LARGEST_TOKENIZER = 1 << 30  # bytes; its readers take all of it into memory
_TOKENIZER_FILES = ("*token*", "*vocab*", "*merges*", "*.model", "tekken.json")


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
        if source.folder is not None:
            values = read_json(source.folder / "config.json")
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


def _refuse_endless(values: Mapping[str, Any]) -> None:
    """Refuse numbers of which nothing could be built in the end.

    Raises:
        ValueError: If there is one.
    """
    for name, value in values.items():
        if isinstance(value, dict) and name.endswith("config"):
            _refuse_endless(value)
        most = next((most for pattern, most in _MOST if pattern.fullmatch(name)), None)
        for number in value if isinstance(value, list) else [value]:
            if most is not None and isinstance(number, int) and number > most:
                raise ValueError(f"{name} is {number}, and at most {most:,} can be built")


def _config_error(source: Source, error: Exception, *, offline: bool) -> ModelError:
    text = str(error)
    reason = " ".join(text.strip("'\"").split())[:160] if text else type(error).__name__
    if "trust_remote_code" in text:
        return ModelError(
            f"'{source.name}' brings model code of its own, which is never run unasked.\n"
            "If you trust its author, pass --trust-remote-code (trust_remote_code=True)."
        )
    if source.folder is None:
        if offline:
            return unreachable(source.name)
        return ModelError(
            f"The hub gives no model '{source.name}': {reason}\nCheck the name; a private one needs 'hf auth login'."
        )
    return ModelError(f"The configuration in '{source.name}' cannot be used: {reason}")


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
    import torch

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


def load_classifier(
    name: str, *, trust_remote_code: bool = False, **overrides: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classifier in fp32 with its tokenizer.

    A head of the checkpoint whose shape does not fit the labels asked for is left out; it is initialised anew.

    Args:
        name: A folder, which may be a delta whose base is in reach, or a hub name.
        trust_remote_code: Whether code that comes with the model may run.
        **overrides: Attributes of the configuration, such as ``num_labels`` and ``id2label``.

    Returns:
        The model in eval mode on the CPU, and its tokenizer, which has a padding token.

    Raises:
        ModelError: If it cannot be found, read or built.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from frostline.checkpoints.delta import delta_contents

    source = locate(name)
    config = load_config(source, trust_remote_code=trust_remote_code, **overrides)
    if not trust_remote_code:
        classifier_class(config, name)
    if source.folder is not None:
        read_headers(source)  # damaged or unsafe weights are told apart here, in a few milliseconds
    offline = source.folder is None and not hub_in_reach()
    delta = delta_contents(source.folder) if source.folder is not None and is_delta(source.folder) else None
    load: Any
    if delta is not None:
        load = partial(classifier_class(config, name).from_pretrained, None, state_dict=delta.tensors)
    else:
        found = AutoModelForSequenceClassification.from_pretrained
        load = partial(found, source.name, trust_remote_code=trust_remote_code, local_files_only=offline)
    try:
        with quiet():
            model, report = load(
                config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except Exception as error:  # whatever a model's constructor makes of a bad configuration
        if offline:
            raise unreachable(name) from None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
        raise ModelError(f"The model '{name}' cannot be loaded: {reason}") from error
    _refuse_other_shapes(model, [entry[0] for entry in report["mismatched_keys"]], name)
    if delta is None:
        tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    else:
        model.name_or_path = model.config.name_or_path = source.name  # as from_pretrained sets both
        with delta.files_in_one_folder() as folder:
            tokenizer = load_tokenizer(Source(str(folder), folder))
    _agree_on_padding(model, tokenizer, name)
    return model, tokenizer


def _refuse_other_shapes(model: PreTrainedModel, mismatched: list[str], name: str) -> None:
    """Let a head have another shape than the checkpoint's, but not the backbone: that would lose what it learnt."""
    backbone = sorted(found for found in mismatched if found.startswith(f"{model.base_model_prefix}."))
    if backbone:
        raise ModelError(
            f"The configuration and the weights of '{name}' do not fit: {len(backbone)} tensors of the backbone have "
            f"another shape, such as {backbone[0]}.\nCopy both anew from the same source."
        )


def load_tokenizer(source: Source, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer.

    Raises:
        ModelError: If there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    offline = source.folder is None and not hub_in_reach()
    if source.folder is not None:
        files = [file for sign in _TOKENIZER_FILES for file in source.folder.glob(sign)]
        if not files:
            raise ModelError(
                f"The folder '{source.name}' holds no tokenizer.\n"
                "Copy tokenizer.json and tokenizer_config.json beside the weights."
            )
        for file in files:
            if file.is_file() and file.stat().st_size > _LARGEST_TOKENIZER:
                raise ModelError(
                    f"'{file}' is larger than {_LARGEST_TOKENIZER:,} bytes.\nCopy the model's own tokenizer."
                )
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                source.name, trust_remote_code=trust_remote_code, local_files_only=offline
            )
    except Exception as error:  # tokenizers raises bare Exceptions for files it cannot read
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(
            f"'{source.name}' has no tokenizer that can be read: {reason}\n"
            "Copy tokenizer.json and tokenizer_config.json beside the weights."
        ) from error
    return tokenizer


def _agree_on_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give tokenizer and configuration the same padding token; decoders often come without one."""
    if tokenizer.pad_token is None:
        substitute = tokenizer.eos_token or tokenizer.unk_token
        if substitute is None:
            raise ModelError(
                f"The tokenizer of '{name}' has no padding token, and none that could serve as one.\n"
                "Add one with tokenizer.add_special_tokens({'pad_token': '[PAD]'}) and save it."
            )
        tokenizer.pad_token = substitute
    text_config = model.config.get_text_config()
    if text_config.pad_token_id is None:
        text_config.pad_token_id = tokenizer.pad_token_id
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def position_limit(model: PreTrainedModel) -> int | None:
    """How many tokens a model's position table takes; None where it has none.

    RoBERTa and its kin count positions from behind the padding token's id, so their table is longer than that.
    """
    import torch

    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embeddings") and limit:
            offset = module.padding_idx + 1 if module.padding_idx is not None else 0
            return min(int(limit), module.num_embeddings) - offset
    return int(limit) if limit and limit > 0 else None


def refuse_strange_tokens(model: PreTrainedModel, tokenised: datasets.Dataset, name: str) -> None:
    """Compare the token ids of a data set with the model's table of embeddings.

    Raises:
        ModelError: If one is outside it, so that the tokenizer belongs to another model.
    """
    import pyarrow.compute as pc
    import torch

    table = model.get_input_embeddings()
    if not isinstance(table, torch.nn.Embedding):
        return
    ids = tokenised.select_columns(["input_ids"]).with_format("arrow")[:].column("input_ids")
    largest = pc.max(pc.list_flatten(ids)).as_py()
    if largest >= table.num_embeddings:
        raise ModelError(
            f"The tokenizer of '{name}' gives the token id {largest:,}, but the model has {table.num_embeddings:,} "
            "embeddings.\nCopy the model's own tokenizer beside its weights."
        )
