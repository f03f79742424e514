"""One call of a model's forward, read: its rows, its real tokens, and what tells a row from all others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from frostline.engine.rows import Rows

if TYPE_CHECKING:
    import inspect
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

Layout = Literal["no mask", "right", "left"]

DIGEST_BYTES = 16
_IDS, _MASK, _LABELS = "input_ids", "attention_mask", "labels"
# What asks for values that a fast path does not compute, or brings values that it does not know.
_OUTPUTS = ("output_hidden_states", "output_attentions")
_NEEDS_PLAIN = ("inputs_embeds", "past_key_values", "head_mask", *_OUTPUTS)
# What changes neither the activations nor the logits.
_INDIFFERENT = frozenset({_LABELS, "return_dict", "use_cache", "num_items_in_batch", *_OUTPUTS})


@dataclass(frozen=True)
class Call:
    """The inputs of one forward.

    Attributes:
        inputs: By name; those with one value per position have the shape (rows, length, ...).
        rows: Which positions hold real tokens.
    """

    inputs: dict[str, Any]
    rows: Rows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions."""
        return self.rows.count, self.rows.length

    @cached_property
    def layout(self) -> Layout | None:
        """On which side its rows are padded; None where a row has no tokens, or they do not stand side by side."""
        if self.inputs.get(_MASK) is None:
            return "no mask"
        mask = self.rows.mask
        if bool((mask[:, 1:] <= mask[:, :-1]).all()) and bool(mask[:, 0].all()):
            return "right"
        return "left" if bool((mask[:, 1:] >= mask[:, :-1]).all()) and bool(mask[:, -1].all()) else None

    def per_token(self, value: Any) -> bool:
        """Whether an input has one value per position."""
        return isinstance(value, torch.Tensor) and value.dim() >= 2 and tuple(value.shape[:2]) == self.shape

    def trimmed(self) -> Call:
        """The same without the positions at the end that are padding in every row."""
        width = int(self.rows.mask.any(dim=0).nonzero().max()) + 1 if self.rows.tokens else self.rows.length
        if width == self.rows.length:
            return self
        inputs = {name: value[:, :width] if self.per_token(value) else value for name, value in self.inputs.items()}
        return Call(inputs, Rows(self.rows.mask[:, :width]))

    def select(self, places: Sequence[int]) -> Call:
        """Some of the rows, still padded to the same length."""
        index = torch.tensor(places, device=self.rows.mask.device)
        inputs = {
            name: value[index]
            if isinstance(value, torch.Tensor) and value.dim() and len(value) == self.rows.count
            else value
            for name, value in self.inputs.items()
        }
        return Call(inputs, Rows(self.rows.mask[index]))

    def without_labels(self) -> Call:
        """The same for a forward that computes no loss."""
        return replace(self, inputs={name: value for name, value in self.inputs.items() if name != _LABELS})

    def digests(self, *, whole: bool = False) -> list[bytes]:
        """Per row 16 bytes that depend on all of its inputs but its labels.

        Args:
            whole: Whether on its padding as well; if not, the same text padded otherwise has the same digest.
        """
        tensors = []
        constants = []
        for name, value in sorted(self.inputs.items()):
            if name in _INDIFFERENT or value is None or (name == _MASK and not whole):
                continue
            if isinstance(value, torch.Tensor) and value.dim() and len(value) == self.rows.count:
                per_token = self.per_token(value)
                tensors.append((per_token, _as_numpy(value)))
                constants.append(f"{name}:{value.dtype}:{tuple(value.shape[2 if per_token else 1 :])}")
            else:
                constants.append(f"{name}={value!r}")
        salt = repr(constants).encode()
        mask = self.rows.mask.cpu().numpy()
        lengths, begins = mask.sum(axis=1).tolist(), mask.argmax(axis=1).tolist()
        digests = []
        for row, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
            digest = hashlib.blake2b(salt, digest_size=DIGEST_BYTES)
            digest.update(begin.to_bytes(4, "little"))  # where a text begins decides on its positions
            for per_token, array in tensors:
                real = array[row][begin : begin + length] if per_token and not whole else array[row]
                digest.update(real.tobytes())
            digests.append(digest.digest())
        return digests


def _as_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def read_call(
    signature: inspect.Signature, arguments: tuple[Any, ...], options: Mapping[str, Any], config: Any
) -> Call | str:
    """Read a call of a model's forward.

    Args:
        signature: Of the forward.
        arguments: What it was called with.
        options: What it was called with by name.
        config: The model's config, which may ask for more outputs.

    Returns:
        The call; or in words why only the plain forward can answer it.
    """
    try:
        inputs = _by_name(signature, arguments, options)
    except TypeError:
        return "the forward is called with arguments that it has no names for"
    reason = _needs_plain(inputs, config)
    if reason is not None:
        return reason
    ids, mask = inputs[_IDS], inputs.get(_MASK)
    call = Call(inputs, Rows(torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()))
    return "a text has no tokens, or a hole in its mask" if call.layout is None else call


def _needs_plain(inputs: Mapping[str, Any], config: Any) -> str | None:
    """Why only the plain forward can answer a call with these inputs; None where a fast path may."""
    ids, mask = inputs.get(_IDS), inputs.get(_MASK)
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2:
        return f"the batch has no {_IDS} of shape (rows, length)"
    for name, value in inputs.items():
        if (name in _NEEDS_PLAIN or name.startswith("decoder_")) and value is not None and value is not False:
            return f"{name} was given"
        if isinstance(value, torch.Tensor) and value.dim() and len(value) != len(ids):
            return f"{name} has another number of rows than {_IDS}"
    asked = [name for name in _OUTPUTS if getattr(config, name, False) and inputs.get(name) is not False]
    if asked:
        return f"the config asks for {asked[0]}"
    if mask is not None and (mask.shape != ids.shape or mask.is_floating_point() or bool((mask != mask.bool()).any())):
        return f"{_MASK} is not of shape (rows, length), or holds more than 0 and 1"
    return None


def _by_name(signature: inspect.Signature, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a forward was called with, by name; TypeError where something has none."""
    inputs = dict(signature.bind(*arguments, **options).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            inputs |= inputs.pop(parameter.name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL and inputs.pop(parameter.name, ()):
            raise TypeError(parameter.name)
    return inputs
