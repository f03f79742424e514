"""What lies beneath a boundary: the tensors that stored activations come from, and the key of a store of them."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from frostline.anatomy.modelmap import ModelMap
from frostline.checkpoints.tensor_files import whole_digest
from frostline.compat.models import NAME_FIELD, attention_of
from frostline.compat.modules import own_buffers, own_parameters
from frostline.compat.tensors import version_of
from frostline.evidence.proof.fingerprint import tensor_digest
from frostline.store.spec import StoreKey, dtype_name

if TYPE_CHECKING:
    from torch import nn

    from frostline.engine.fast_paths import FastPaths

Version = tuple[int, torch.dtype, int] | None

# Of a config, what activations do not depend on.
_NOT_IN_KEY = frozenset(
    {
        NAME_FIELD,
        "architectures",
        "transformers_version",
        "id2label",
        "label2id",
        "problem_type",
        "num_labels",
    }
)


class Prefix:
    """All parameters and buffers beneath a unit.

    Args:
        model: The model inside its wrappers.
        boundary: The unit.
    """

    def __init__(self, model: nn.Module, boundary: str) -> None:
        self._model = model
        units = ModelMap.of(model).units
        beneath = units[: [unit.name for unit in units].index(boundary)]
        self._names = sorted(name for unit in beneath for name in (*unit.parameter_names, *unit.buffer_names))
        self._places = [self._place(name) for name in self._names]

    def _place(self, name: str) -> tuple[dict[str, Any], str]:
        """What holds a parameter or buffer, and its name there."""
        path, _, own = name.rpartition(".")
        module = self._model.get_submodule(path)
        return next(held for held in (own_parameters(module), own_buffers(module)) if own in held), own

    def versions(self) -> tuple[Version, ...]:
        """What tells that a tensor was replaced, moved, cast, or written; writing through ``.data`` goes unnoticed."""
        found = [held.get(name) for held, name in self._places]
        return tuple(
            None if tensor is None else (tensor.data_ptr(), tensor.dtype, version_of(tensor)) for tensor in found
        )

    def digest(self) -> str:
        """One digest of all of them that the model still has, in hex digits."""
        tensors = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        names = [name for name in self._names if name in tensors]
        with ThreadPoolExecutor() as pool:
            digests = pool.map(tensor_digest, (tensors[name] for name in names))
        return whole_digest(dict(zip(names, digests, strict=True)))


def store_key(
    model: nn.Module, paths: FastPaths, prefix: str, *, dtype: torch.dtype | None, autocast: torch.dtype | None
) -> StoreKey:
    """Make the key of a store: all that its content depends on.

    Args:
        model: The model inside its wrappers.
        paths: What its forward is spared, replay included.
        prefix: The digest of all that lies beneath the boundary.
        dtype: What activations are stored as; None for as they are.
        autocast: What autocast computes in; None outside of it.
    """
    config = getattr(model, "config", None)
    fields = config.to_dict() if config is not None else {}
    text = json.dumps({k: v for k, v in fields.items() if k not in _NOT_IN_KEY}, sort_keys=True, default=str)
    details = [*sorted(paths.stored_positions.values()), *(["with padding"] if paths.whole else [])]
    if paths.replay is not None:
        details = [paths.replay.route.boundary, *details, *(stream.name for stream in paths.replay.streams)]
    parameter = next(model.parameters())
    within = f", autocast to {dtype_name(autocast)}" if autocast is not None else ""
    return StoreKey(
        prefix=prefix,
        config=hashlib.sha256(text.encode()).hexdigest(),
        inputs="rows by the digest of their model inputs",
        boundary=", ".join(details),
        dtype=dtype_name(dtype or parameter.dtype),
        attention=f"{attention_of(config)} on {parameter.device.type}{within}",
    )
