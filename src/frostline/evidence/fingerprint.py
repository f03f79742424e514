"""Fingerprints: a digest per tensor, so that two states of a model can be compared bit by bit."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.anatomy.ties import tied_groups
from frostline.anatomy.wrappers import refuse_no_module
from frostline.checkpoints.stored import Checkpoint, whole_digest

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The digests of a model's tensors.

    Attributes:
        digests: Per parameter and buffer name, the SHA-256 of dtype, shape and content, as hex digits.
            A tensor with several names (tied weights) stands under its first one.
        aliases: Per further name of such a tensor, the first one.
    """

    digests: dict[str, str]
    aliases: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The fingerprint as plain values."""
        return {"digests": dict(self.digests), "aliases": dict(self.aliases)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fingerprint:
        """Build a fingerprint from what `to_dict` gives."""
        return cls(dict(values["digests"]), dict(values["aliases"]))

    @property
    def whole(self) -> str:
        """One digest for all tensors, in hex digits; it does not depend on their order."""
        return whole_digest(self.digests)


def fingerprint(model: nn.Module | str | os.PathLike[str]) -> Fingerprint:
    """Take the digest of every parameter and buffer of a model, or of every tensor of a checkpoint.

    Args:
        model: The model, on any device but meta; it is not changed. Or a checkpoint's folder or hub name: its tensors
            are hashed where they lie, under the checkpoint's own names, and no model is built.

    Returns:
        One SHA-256 per tensor over its dtype, its shape and the bytes of its values in row-major order. A tensor of a
        checkpoint and the same tensor in the loaded model have equal digests.

    Raises:
        ModelError: If it is neither, or a checkpoint has no weights, or they are damaged, unsafe or out of reach.
    """
    if isinstance(model, str | os.PathLike):
        checkpoint = Checkpoint.open(model)
        return Fingerprint(checkpoint.digests(), checkpoint.aliases)
    refuse_no_module(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    # hashlib releases the GIL; a thread per core keeps the memory for copies small.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        digests = list(pool.map(tensor_digest, tensors.values()))
    return Fingerprint(
        digests=dict(zip(tensors, digests, strict=True)),
        aliases={name: first for first, *others in tied_groups(model) for name in others},
    )


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of one tensor, in hex digits.

    Args:
        tensor: Any shape, any dtype with a byte view, any device but meta.
    """
    import torch

    values = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}\n".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
