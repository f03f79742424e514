"""Loading a sequence classifier and its tokenizer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from frostline.base.hub import hub_in_reach
from frostline.checkpoints.adapters import AdapterFolder
from frostline.checkpoints.delta.delta import OpenedDelta
from frostline.checkpoints.headers import is_delta, unreachable
from frostline.checkpoints.quiet_loading import quiet
from frostline.checkpoints.reading import read_headers
from frostline.checkpoints.skeleton import classifier_class, load_config
from frostline.checkpoints.source import Source, locate
from frostline.errors import ModelError

if TYPE_CHECKING:
    import datasets
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


# One of these is in every folder that a tokenizer was saved in.
_LARGEST_TOKENIZER = 1 << 30  # bytes; its readers take all of it into memory
_TOKENIZER_FILES = ("*token*", "*vocab*", "*merges*", "*.model", "tekken.json")


def load_classifier(
    name: str, *, base: str | None = None, trust_remote_code: bool = False, **overrides: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classifier in fp32 with its tokenizer.

    A head of the checkpoint whose shape does not fit the labels asked for is left out; it is initialised anew.

    Args:
        name: A folder, which may be a delta or hold adapters of PEFT, their base being in reach; or a hub name.
        base: For a folder of adapters, what they belong to; by default what their configuration names.
        trust_remote_code: Whether code that comes with the model may run.
        **overrides: Attributes of the configuration, such as ``num_labels`` and ``id2label``.

    Returns:
        The model in eval mode on the CPU, within a ``PeftModel`` where there are adapters; and its tokenizer, which has
        a padding token.

    Raises:
        ModelError: If it cannot be found, read or built.
        MissingExtraError: If the folder holds adapters, and PEFT is not installed.
    """
    source = locate(name)
    adapters = AdapterFolder.open(source, base)
    whole = source if adapters is None else adapters.base
    config = load_config(source, trust_remote_code=trust_remote_code, **overrides)
    if not trust_remote_code:
        classifier_class(config, name)
    if whole.folder is not None:
        read_headers(whole)  # damaged or unsafe weights are told apart here, in a few milliseconds
    delta = OpenedDelta(whole.folder) if whole.folder is not None and is_delta(whole.folder) else None
    model = _load_whole(whole, delta, config, trust_remote_code=trust_remote_code)
    if adapters is not None:
        with quiet():
            model = adapters.on_model(model)
    if delta is None or adapters is not None:
        tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    else:
        with delta.files_in_one_folder() as folder:
            tokenizer = load_tokenizer(Source(str(folder), folder))
    _agree_on_padding(model, tokenizer, name)
    return model, tokenizer


def _load_whole(
    source: Source, delta: OpenedDelta | None, config: PretrainedConfig, *, trust_remote_code: bool
) -> PreTrainedModel:
    """Load the weights of a folder, a delta or a hub name."""
    from transformers import AutoModelForSequenceClassification

    name = source.name
    offline = source.folder is None and not hub_in_reach()
    load: Any
    if delta is not None:
        load = partial(classifier_class(config, name).from_pretrained, None, state_dict=delta.values())
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
    if delta is not None:
        model.name_or_path = model.config.name_or_path = name  # as from_pretrained sets both
    return cast("PreTrainedModel", model)


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
        ModelError: If there is none, or it cannot be read; in a folder, if the configuration cannot.
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
        if source.folder is not None:
            load_config(source, trust_remote_code=trust_remote_code)  # which the tokenizer's class may come from
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
