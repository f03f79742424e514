"""Fingerprints: a digest per tensor, so that two states of a model can be compared bit by bit."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from frostline.anatomy.ties import tied_groups
from frostline.anatomy.wrappers import refuse_no_module
from frostline.checkpoints.reading import open_checkpoint
from frostline.checkpoints.tensor_files import whole_digest
from frostline.freezing.mode import frozen_modules, is_pinned


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The digests of a model's tensors, and which of them were frozen.

    Two fingerprints are equal where the tensors are, whatever was frozen.

    Attributes:
        digests: Per parameter and buffer name, the SHA-256 of dtype, shape and content, as hex digits.
            A tensor with several names (tied weights) stands under its first one.
        aliases: Per further name of such a tensor, the first one.
        frozen: What `frozen_names` gave when it was taken; None where that is not known, as of a checkpoint.
    """

    digests: dict[str, str]
    aliases: dict[str, str]
    frozen: frozenset[str] | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The fingerprint as plain values; ``frozen`` only where it is known."""
        values: dict[str, Any] = {"digests": dict(self.digests), "aliases": dict(self.aliases)}
        return values if self.frozen is None else values | {"frozen": sorted(self.frozen)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fingerprint:
        """Build a fingerprint from what `to_dict` gives; an earlier release did not note what was frozen."""
        frozen = values.get("frozen")
        return cls(
            dict(values["digests"]), dict(values["aliases"]), None if frozen is None else frozenset(map(str, frozen))
        )

    @property
    def whole(self) -> str:
        """One digest for all tensors, in hex digits; it does not depend on their order."""
        return whole_digest(self.digests)


def fingerprint(model: nn.Module | str | os.PathLike[str]) -> Fingerprint:
    """Take the digest of every parameter and buffer of a model, and note what is frozen; or those of a checkpoint.

    Args:
        model: The model, on any device but meta; it is not changed. Or a checkpoint's folder or hub name: its tensors
            are hashed where they lie, under the checkpoint's own names, and no model is built.

    Returns:
        One SHA-256 per tensor over its dtype, its shape and the bytes of its values in row-major order. A tensor of a
        checkpoint and the same tensor in the loaded model have equal digests. What is frozen, a checkpoint does not
        tell.

    Raises:
        ModelError: If it is neither, or a checkpoint has no weights, or they are damaged, unsafe or out of reach.
    """
    if isinstance(model, str | os.PathLike):
        checkpoint = open_checkpoint(model)
        return Fingerprint(checkpoint.digests(), checkpoint.aliases)
    refuse_no_module(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    # hashlib releases the GIL; a thread per core keeps the memory for copies small.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        digests = list(pool.map(tensor_digest, tensors.values()))
    return Fingerprint(
        digests=dict(zip(tensors, digests, strict=True)),
        aliases={name: first for first, *others in tied_groups(model) for name in others},
        frozen=frozen_names(model),
    )


def frozen_names(model: nn.Module) -> frozenset[str]:
    """Names of the tensors that must not move while a model trains as it stands.

    They are the parameters whose flag is off, and the buffers of frozen modules that are kept in
    eval mode. Buffers of a frozen module that follows ``train()`` may move (BatchNorm statistics).
    """
    names = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    still = {id(module) for module in frozen_modules(model) if is_pinned(module)}
    for path, module in model.named_modules():
        if id(module) in still:
            names |= {f"{path}.{name}".lstrip(".") for name, _ in module.named_buffers(recurse=False)}
    return frozenset(names)


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of one tensor, in hex digits.

    Args:
        tensor: Any shape, any dtype with a byte view, any device but meta.
    """
    values = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}\n".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
