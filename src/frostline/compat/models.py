"""Configurations, files and names of models, and how transformers loads them."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

# Where a configuration keeps the name that it was loaded by. In: all. Lost: a store is not found under another path.
NAME_FIELD = "_name_or_path"

# The code whose hooks stay on a model once outputs were asked for; they see nothing unasked. In: transformers 5.2 and
# newer. Else: outputs are collected without hooks that stay.
_CAPTURING = "transformers.utils.output_capturing"
# The hook that has embeddings require a gradient, for layers that run again in the backward pass. In: all. Lost: fast
# paths where it stands on the model.
_REQUIRING = "make_inputs_require_grads"


def is_harmless(hook: Callable[..., Any]) -> bool:
    """Tell whether a forward hook is one of transformers' that neither keep nor change a value.

    In: all.
    """
    return hook.__module__ == _CAPTURING or getattr(hook, "__name__", "") == _REQUIRING


def was_loaded(model: nn.Module) -> bool:
    """Tell whether ``from_pretrained`` made a model: one built from a checkpoint's configuration names it too.

    In: all. Lost: the origin of a model is unknown.
    """
    return hasattr(model, "_weight_conversions")


def attend_eagerly(config: PretrainedConfig) -> None:
    """Have a model built that attends by plain code, which wants no library or device of its own.

    In: all.
    """
    config._attn_implementation = "eager"


def attention_of(config: Any) -> str | None:
    """Give the name of the attention that a model runs with.

    In: all. Lost: a store is used again for another attention, within what rounding differs.
    """
    return getattr(config, "_attn_implementation", None)


def gives_gradients_to_inputs(model: Any) -> bool:
    """Tell whether ``enable_input_require_grads()`` was called.

    In: transformers 5.0 and newer, by two names.
    """
    return bool(getattr(model, "_require_grads_hooks", None) or getattr(model, "_require_grads_hook", None))


def pads_by_usual_code(kind: Any) -> bool:
    """Tell whether a class of tokenizers pads as their base class does.

    In: all. Lost: batches are padded row by row.
    """
    from transformers import PreTrainedTokenizerBase

    usual = getattr(PreTrainedTokenizerBase, "_pad", None)
    return usual is not None and kind.pad is PreTrainedTokenizerBase.pad and kind._pad is usual


def hub_file(name: str, file: str, *, cached_only: bool = False, refuses_no_network: bool = False) -> Path | None:
    """Find a file of a model in the hub's cache, or fetch it; None where there is none.

    In: all.

    Args:
        name: The model's name on the hub.
        file: The file's name.
        cached_only: Whether nothing is fetched.
        refuses_no_network: Whether a hub out of reach is an error rather than no file.
    """
    from transformers.utils.hub import cached_file

    found = cached_file(
        name,
        file,
        local_files_only=cached_only,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=refuses_no_network,
    )
    return None if found is None else Path(found)


def without_values(file: Path) -> dict[str, torch.Tensor]:
    """Read names, shapes and dtypes of the tensors in a file of weights, as tensors on the meta device.

    In: all; before transformers 5.2 its name has to be a text.
    """
    from transformers.modeling_utils import load_state_dict

    return load_state_dict(os.fspath(file), map_location="meta")


def dtype_in_header(name: str) -> torch.dtype:
    """Give the dtype that the header of a safetensors file names.

    In: all.
    """
    from transformers.modeling_utils import str_to_torch_dtype

    return str_to_torch_dtype[name]


class LoaderNames:
    """What the loader of transformers does to the names of a checkpoint's tensors, and to their values.

    In: all; which types have conversions differs from version to version, as their classes do.

    Args:
        model: The model that is loaded into.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        transforms = get_model_conversion_mapping(model)
        self._renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
        self._converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
        self._by_pattern = {pattern: own for own in self._converters for pattern in own.source_patterns}
        self._own, self._prefix = model.state_dict(), model.base_model_prefix

    def in_order(self, names: Iterable[str]) -> Iterator[tuple[str, str, str | None, Any]]:
        """Go through a checkpoint's names in the loader's order, on which some renamings depend.

        Returns:
            Each name that the loader has a use for, the name it gets, the pattern by which a conversion takes it and
            that conversion; None for both where it is taken as it is.
        """
        from transformers.core_model_loading import dot_natural_key, rename_source_key

        for name in sorted(names, key=dot_natural_key):
            key, pattern = rename_source_key(name, self._renamings, self._converters, self._prefix, self._own)
            if key not in self._own and name in self._own:
                key, pattern = rename_source_key(name, [], [], self._prefix, self._own)
            if key in self._own:
                yield name, key, pattern, None if pattern is None else self._by_pattern[pattern]


def converted(
    conversion: Any, key: str, taken: Iterable[tuple[str, str, torch.Tensor]], model: PreTrainedModel
) -> Mapping[str, Any]:
    """Run a conversion of the loader.

    In: all; transformers 5.0 gives what went wrong as well.

    Args:
        conversion: One of those that `LoaderNames` gives.
        key: The name that the loader gives its first tensor.
        taken: Name, pattern and values of each tensor; on the meta device too.
        model: The model that is loaded into.
    """
    own = copy.deepcopy(conversion)
    for name, pattern, value in taken:
        own.add_tensor(key, name, pattern, value)
    made: Any = own.convert(key, model=model, config=model.config)
    tensors: Mapping[str, Any] = made[0] if isinstance(made, tuple) else made
    return tensors
