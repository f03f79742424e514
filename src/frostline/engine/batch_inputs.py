"""One call of a model's forward, read: its rows, its real tokens, and what tells a row from all others."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import torch

from frostline.engine.documents import as_one_row, as_rows, described_in, documents_in, end_to_end, why_end_to_end
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.token_layout import TokenLayout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor, nn

Layout = Literal["no tokens", "no mask", "right", "left"]

DIGEST_BYTES = 16
_IDS, _MASK = "input_ids", "attention_mask"
# What asks for values that a fast path does not compute, or brings values that it does not know.
_OUTPUTS = ("output_hidden_states", "output_attentions")
_NEEDS_PLAIN = ("inputs_embeds", "past_key_values", "head_mask", *_OUTPUTS)
# How many labels the batches of one optimizer step have: a number of the Trainer's, another one in each step.
_COUNT = "num_items_in_batch"
# What only says in which form the forward gives out its results.
_FORM = frozenset({"return_dict", "use_cache", *_OUTPUTS})

Plain = bool | int | float | str


class NeedsPlain(Exception):  # noqa: N818 - it is no error of the user's, but a reason
    """Why only the plain forward can answer a call, in words."""


@dataclass(frozen=True)
class Call:
    """The inputs of one forward.

    Attributes:
        inputs: By name; tensors have their rows first.
        rows: Which positions hold real tokens; where rows are no texts, each has one position.
        has_tokens: Whether rows are texts: one row of ``input_ids`` each.
        aligned: Names of the inputs with one value per position, of shape (rows, length, ...). Until that was found
            out by experiment, these are all that have that shape.
        described_by: Where rows are documents that came end to end in one row, what said besides their positions where
            they begin; None where rows came as rows.
    """

    inputs: dict[str, Any]
    rows: TokenLayout
    aligned: frozenset[str]
    has_tokens: bool = True
    described_by: frozenset[str] | None = None

    @classmethod
    def of(cls, inputs: dict[str, Any], rows: TokenLayout) -> Call:
        """A call of which nothing is known but shapes."""
        shape = (rows.count, rows.length)
        names = (name for name, value in inputs.items() if isinstance(value, torch.Tensor) and value.dim() >= 2)
        return cls(inputs, rows, frozenset(name for name in names if tuple(inputs[name].shape[:2]) == shape))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions."""
        return self.rows.count, self.rows.length

    @cached_property
    def layout(self) -> Layout | None:
        """On which side its rows are padded; None where a row has no tokens, or they do not stand side by side."""
        if not self.has_tokens:
            return "no tokens"
        if self.inputs.get(_MASK) is None:
            return "no mask"
        mask = self.rows.mask
        if bool((mask[:, 1:] <= mask[:, :-1]).all()) and bool(mask[:, 0].all()):
            return "right"
        return "left" if bool((mask[:, 1:] >= mask[:, :-1]).all()) and bool(mask[:, -1].all()) else None

    @cached_property
    def paddings(self) -> dict[str, Plain | None]:
        """The one value that an aligned input has at every padded position; None where there are several.

        Nothing is told where there is no padding.
        """
        if self.rows.full:
            return {}
        behind = ~self.rows.mask
        return {name: _only_value(self.inputs[name], behind) for name in sorted(self.aligned)}

    def kind(self) -> tuple[Any, ...]:
        """What two calls have to have in common for the same fast paths: the inputs' names and kinds, not their sizes.

        What has another value in each call by its nature is left out: tensors' values, and the count of labels.
        """
        names = tuple((name, _kind(name, value)) for name, value in sorted(self.inputs.items()))
        return names if self.described_by is None else (*names, self.described_by)

    def as_it_came(self) -> dict[str, Any]:
        """What the plain forward is called with: documents end to end in one row, where they came so."""
        if self.described_by is None:
            return self.inputs
        return as_one_row(self.inputs, self.rows, self.described_by)

    def given_out(self, output: Any) -> Any:
        """What a forward gave out for the rows, in the form in which they came."""
        return output if self.described_by is None else end_to_end(output, self.rows)

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one row of each input that has rows."""
        return {name: tuple(value.shape[1:]) for name, value in self.inputs.items() if self.is_per_row(value)}

    def is_per_row(self, value: Any) -> bool:
        """Whether an input has one value, or more, for each row."""
        return isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == self.rows.count

    def trimmed(self) -> Call:
        """The same without the positions at the end that are padding in every row."""
        width = int(self.rows.mask.any(dim=0).nonzero().max()) + 1 if self.rows.tokens else self.rows.length
        if width == self.rows.length:
            return self
        inputs = {name: value[:, :width] if name in self.aligned else value for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, rows=TokenLayout(self.rows.mask[:, :width]))

    def select(self, places: Sequence[int]) -> Call:
        """Some of the rows, still padded to the same length."""
        index = torch.tensor(places, device=self.rows.mask.device)
        inputs = {name: value[index] if self.is_per_row(value) else value for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, rows=TokenLayout(self.rows.mask[index]))

    def with_positions(self, count: int) -> Call:
        """The same with rows that are no texts known to have so many positions inside of the model."""
        mask = torch.ones(self.rows.count, count, dtype=torch.bool, device=self.rows.mask.device)
        return replace(self, rows=TokenLayout(mask))

    def with_aligned(self, names: frozenset[str]) -> Call:
        """The same with these inputs known to have one value per position.

        Raises:
            NotReplayable: If one of them has not the shape for it.
        """
        if names == self.aligned:
            return self
        missing = sorted(names - self.aligned)
        if missing:
            raise NotReplayable(f"{missing[0]} has not one value per token, as it had before")
        return replace(self, aligned=names)

    def digests(self, *, whole: bool = False, unread: frozenset[str] = frozenset(), salt: str = "") -> list[bytes]:
        """Compute per row 16 bytes that depend on all that may decide on its activations.

        Of aligned inputs that is what stands at real tokens, unless the rest is more than one value; of all others the
        whole row.

        Args:
            whole: Whether padding counts as well; if not, the same text padded to another length has the same digest.
            unread: Names of inputs that the layers beneath the boundary never read.
            salt: What else decides, the same for all rows.
        """
        tensors = []
        constants = [salt]
        for name, value in sorted(self.inputs.items()):
            if name in unread or name in _FORM or value is None or (name == _MASK and not whole):
                continue
            if self.is_per_row(value):
                aligned = name in self.aligned and not whole
                padding = self.paddings.get(name, _ANY) if aligned else _ANY
                aligned = aligned and padding is not None
                tensors.append((aligned, _as_numpy(value)))
                constants.append(f"{name}:{value.dtype}:{tuple(value.shape[2 if aligned else 1 :])}")
            elif isinstance(value, torch.Tensor):
                constants.append(f"{name}={value.dtype}:{value.tolist()!r}")
            elif name != _COUNT:
                constants.append(f"{name}={value!r}")
        begun = hashlib.blake2b(repr(constants).encode(), digest_size=DIGEST_BYTES)
        mask = _as_numpy(self.rows.mask)
        lengths, begins = mask.sum(axis=1).tolist(), mask.argmax(axis=1).tolist()
        digests = []
        for row, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
            digest = begun.copy()
            digest.update(begin.to_bytes(4, "little"))  # where a text begins decides on its positions
            for aligned, array in tensors:
                real = array[row][begin : begin + length] if aligned else array[row]
                digest.update(real.tobytes())
            digests.append(digest.digest())
        return digests


_ANY = object()


def _kind(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return "tensor", value.dtype, value.dim()
    return type(value).__name__ if name == _COUNT else value


def _only_value(tensor: Tensor, where: Tensor) -> Plain | None:
    if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16:  # numpy takes a part of torch's time
        values: Any = tensor.detach().numpy()[where.numpy()]
    else:
        values = tensor.detach()[where]
    first = values.reshape(-1)[:1]
    return first.item() if bool((values == first).all()) else None


def _as_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def read_call(
    signature: inspect.Signature, arguments: tuple[Any, ...], options: Mapping[str, Any], config: Any
) -> Call:
    """Read a call of a model's forward.

    Args:
        signature: Of the forward.
        arguments: What it was called with.
        options: What it was called with by name.
        config: The model's config, which may ask for more outputs.

    Raises:
        NeedsPlain: If only the plain forward can answer it.
    """
    try:
        inputs = _by_name(signature, arguments, options)
    except TypeError:
        raise NeedsPlain("the forward is called with arguments that it has no names for") from None
    inputs, described_by = by_rows(inputs)
    reason = _needs_plain(inputs, config)
    if described_by is not None and _asks_for_cache(inputs, config):
        reason = "packed documents with a cache of keys and values are one row; use_cache=False goes without"
    if reason is not None:
        raise NeedsPlain(reason)
    rows = layout_of(inputs)
    if not _are_ids(inputs.get(_IDS)):
        return Call(inputs, rows, frozenset(), has_tokens=False)
    call = Call.of(inputs, rows)
    if call.layout is None:
        raise NeedsPlain("a text has no tokens, or a hole in its mask")
    return replace(call, described_by=described_by)


def by_rows(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str] | None]:
    """The same inputs with documents that stand end to end as rows, and what else said where they begin.

    Raises:
        NeedsPlain: If they have to stay as they are.
    """
    documents = documents_in(inputs)
    if documents is None:
        return dict(inputs), None
    reason = why_end_to_end(inputs, documents)
    if reason is not None:
        raise NeedsPlain(reason)
    return as_rows(inputs, documents), described_in(inputs)


def _are_ids(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, torch.Tensor) and value.dim() == 2


def layout_of(inputs: Mapping[str, Any]) -> TokenLayout:
    """Where the real tokens of a batch stand; one position per row where rows are images, sounds, choices or others."""
    documents = documents_in(inputs)
    if documents is not None:
        return documents
    ids, mask = inputs.get(_IDS), inputs.get(_MASK)
    if _are_ids(ids):
        return TokenLayout(torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool())
    first = next(value for value in inputs.values() if isinstance(value, torch.Tensor) and value.dim())
    return TokenLayout(torch.ones(len(first), 1, dtype=torch.bool, device=first.device))


def _asks_for_cache(inputs: Mapping[str, Any], config: Any) -> bool:
    """Whether keys and values are given out, with which transformers lets documents attend to each other as well."""
    own = inputs.get("use_cache")
    return bool(getattr(config, "use_cache", False) if own is None else own)


def _needs_plain(inputs: Mapping[str, Any], config: Any) -> str | None:
    """Why only the plain forward can answer a call with these inputs; None where a fast path may."""
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor) and value.dim()}
    first = _IDS if _IDS in tensors else next(iter(tensors), None)
    if first is None or not len(tensors[first]):
        return "the batch has no tensor with rows"
    for name, value in inputs.items():
        reason = _why_plain(name, value, first, len(tensors[first]))
        if reason is not None:
            return reason
    asked = [name for name in _OUTPUTS if getattr(config, name, False) and inputs.get(name) is not False]
    if asked:
        return f"the config asks for {asked[0]}"
    ids, mask = inputs.get(_IDS), inputs.get(_MASK)
    if not _are_ids(ids) or mask is None:
        return None
    if mask.shape != ids.shape or mask.is_floating_point() or bool((mask != mask.bool()).any()):
        return f"{_MASK} is not of shape (rows, length), or holds more than 0 and 1"
    return None


def _why_plain(name: str, value: Any, first: str, rows: int) -> str | None:
    """Why only the plain forward can answer a call with this input; None where a fast path may."""
    if (name in _NEEDS_PLAIN or name.startswith("decoder_")) and value is not None and value is not False:
        return f"{name} was given"
    if isinstance(value, torch.Tensor) and value.dim() and len(value) != rows:
        return f"{name} has another number of rows than {first}"
    if not isinstance(value, torch.Tensor | Plain | None):
        return f"{name} is a {type(value).__name__}, of which it is not known what of it belongs to which row"
    return None


def named_inputs(model: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's forward is called with, by name."""
    names = list(inspect.signature(type(model).forward).parameters)[1:]
    return dict(zip(names, arguments, strict=False)) | dict(options)


def _by_name(signature: inspect.Signature, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a forward was called with, by name; TypeError where something has none."""
    inputs = dict(signature.bind(*arguments, **options).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            inputs |= inputs.pop(parameter.name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL and inputs.pop(parameter.name, ()):
            raise TypeError(parameter.name)
    return inputs
